"""All workspaces at once. See `pyapi.workspace` for how a call behaves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .calls import Call, Row, Statement, sync
from .errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class RegistryLoad:
    """What loading a manifest did to the registry, or would do (`dry_run`)."""

    revision: int
    """The registry's revision now."""
    loaded: bool
    """False: it was a dry run, or this is the manifest that is loaded already."""
    added: list[dict[str, Any]]
    """What the manifest has and the registry had not: objects with `kind` (`provider`, `runtime`,
    `arm`, `model` or `equivalent`) and what identifies it."""
    removed: list[dict[str, Any]]
    changed: list[dict[str, Any]]
    orphans: list[dict[str, Any]]
    """Workspaces whose model is not registered any more: objects with `workspace_id`, `runtime`."""


def _registry_load(rows: list[Row]) -> RegistryLoad:
    revision, loaded, *lists = rows[0]
    return RegistryLoad(revision, loaded, *map(json.loads, lists))


# JSON travels as text, so that the connection's own JSON adapters do not matter.
_LOAD_REGISTRY = Statement(
    """
    select revision, loaded, added::text, removed::text, changed::text, orphans::text
    from fleet.load_registry(
        manifest => %(manifest)s::jsonb, on_orphan => %(on_orphan)s::text,
        dry_run => %(dry_run)s::boolean)
    """,
    _registry_load,
)


def load_registry_call(
    manifest: Mapping[str, Any],
    *,
    on_orphan: Literal["refuse", "keep", "reset"] = "refuse",
    dry_run: bool = False,
) -> Call[RegistryLoad]:
    """Replace the registry by a manifest, as a new revision.

    `pyapi.schema.default_manifest()` is the one that comes with the package. With
    `on_orphan="refuse"` nothing is loaded if a workspace would be left with a model that is not
    registered for its runtime. `dry_run` checks everything and loads nothing.

    Raises: InvalidArgument, IsolationUnsupported (the transaction is not READ COMMITTED),
    RegistryInvalid, RegistryOrphans, RuntimeInUse.
    """
    try:
        text = json.dumps(manifest, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgument.make("manifest", "cannot be written as JSON") from error
    return Call(_LOAD_REGISTRY, {"manifest": text, "on_orphan": on_orphan, "dry_run": dry_run})


load_registry = sync(load_registry_call)
