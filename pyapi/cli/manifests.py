"""Reading a manifest that somebody wrote, in YAML or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from ..errors import RegistryInvalid


class _Loader(yaml.SafeLoader):
    """YAML with the types of JSON, in which a key may not be there twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        try:
            _refuse_twins(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        except ValueError as error:
            raise yaml.MarkedYAMLError(problem=str(error), problem_mark=node.start_mark) from error
        return super().construct_mapping(node, deep)


# What looks like a date is a string.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read(source: Path) -> Any:
    """Return what a file holds (`-`: standard input); the database says if it is a manifest.

    Raises RegistryInvalid for what is neither YAML nor JSON, and OSError.
    """
    place = str(source)
    try:
        text = sys.stdin.read() if place == "-" else source.read_text(encoding="utf-8")
        if source.suffix not in {".yaml", ".yml"} and text.lstrip().startswith("{"):
            return json.loads(text, object_pairs_hook=_object)
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        cause: Exception = error
        problem = error.problem or "is not YAML"
        if mark := error.problem_mark:
            place = f"line {mark.line + 1}, column {mark.column + 1}"
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        cause, problem = error, str(error)
    raise RegistryInvalid(
        422,
        "REGISTRY_INVALID",
        "The manifest cannot be read.",
        "Mend it and load again. Nothing was changed.",
        {
            "code": "REGISTRY_INVALID",
            "problems": [{"path": place, "problem": problem}],
            "problems_total": 1,
        },
    ) from cause


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _refuse_twins(key for key, _ in pairs)
    return dict(pairs)


def _refuse_twins(keys: Iterable[str]) -> None:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise ValueError(f"the key {key!r} is there twice")
        seen.add(key)
