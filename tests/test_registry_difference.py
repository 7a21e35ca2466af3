"""What loading a manifest says it changes, against the same worked out in Python."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import Conn, Json, call, load, manifest, nothing_written, provider, savepoint

PROVIDERS = ["p", "q", "x"]
RUNTIMES = ["r", "s", "t"]
MODELS = [f"model-{number}" for number in range(6)]
TIMES = ["2026-01-01", "2026-01-01T00:00:00Z", "2026-01-01T06:30:00Z"]
ENDS = ["2027-01-01", "2027-01-01T00:00:00Z"]
TABLES = ["providers", "arms", "models", "runtimes", "claims", "equivalents"]


def some(of: list[str]) -> st.SearchStrategy[list[str]]:
    """A part of a list, in any order."""
    return st.permutations(of).flatmap(
        lambda order: st.integers(0, len(of)).map(lambda size: order[:size])
    )


@st.composite
def manifests(draw: st.DrawFn) -> Json:
    """A manifest that can be loaded; often one that another differs from in little."""

    def sometimes(entry: Json, key: str, values: st.SearchStrategy[Any]) -> None:
        if draw(st.booleans()):
            entry[key] = draw(values)

    providers = []
    for name in draw(some(PROVIDERS)):
        entry = provider(name)
        sometimes(entry, "billed_to", st.sampled_from(["tenant", "platform"]))
        sometimes(entry, "auth_env", some(["KEY", "TOKEN"]))
        sometimes(entry, "model_prefixes", some([f"{name}-", f"{name}-long"]))
        sometimes(entry, "model_aliases", some([f"{name}1"]))
        sometimes(entry, "case_sensitive", st.booleans())
        providers.append(entry)
    runtimes = []
    for name in draw(some(RUNTIMES)):
        arms = []
        for each in draw(some([entry["name"] for entry in providers])):
            arm: Json = {"provider": each}
            sometimes(arm, "models", st.lists(st.sampled_from(MODELS), max_size=5))
            arms.append(arm)
        menu = [model for arm in arms for model in arm.get("models", [])]
        runtime: Json = {"name": name}
        if draw(st.booleans()) or arms:
            runtime["arms"] = arms
        if menu:
            sometimes(runtime, "default_model", st.sampled_from(menu))
        sometimes(runtime, "model_policy", st.sampled_from(["registered", "any"]))
        runtimes.append(runtime)
    menus = {entry["name"]: set(listed(entry)) for entry in runtimes}
    known = sorted(set().union(*menus.values()))

    content = manifest(providers, runtimes)
    if draw(st.booleans()) and known:
        first = draw(some(known))
        content["equivalents"] = [first, draw(some(sorted(set(known) - set(first))))]
    if draw(st.booleans()) and known:
        content["deprecations"] = []
        for model in draw(some(known)):
            entry = {"model": model, "deprecated_at": draw(st.sampled_from(TIMES))}
            sometimes(entry, "sunset_at", st.sampled_from(ENDS))
            having = [name for name, menu in menus.items() if model in menu]
            sometimes(entry, "runtimes", some(having).filter(bool))
            if others := sorted(set(known) - {model}):
                sometimes(entry, "successor", st.sampled_from(others))
            content["deprecations"].append(entry)
    return content


def listed(runtime: Json) -> list[str]:
    return [model for arm in runtime.get("arms", []) for model in arm.get("models", [])]


def moment(text: str) -> str:
    at = datetime.fromisoformat(text)
    return at.replace(tzinfo=at.tzinfo or UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Key = tuple[tuple[str, Any], ...]


def key(**names: Any) -> Key:
    return tuple(sorted(names.items()))


def facts(content: Json) -> tuple[dict[Key, Json], dict[Key, list[str]]]:
    """Each thing that a manifest has, with what it says of it; and its lists, in order."""
    said: dict[Key, Json] = {}
    lists: dict[Key, list[str]] = {}
    lists[key(of="provider")] = [each["name"] for each in content["providers"]]
    lists[key(of="runtime")] = [each["name"] for each in content["runtimes"]]
    for each in content["providers"]:
        said[key(kind="provider", provider=each["name"])] = {
            "billed_to": each.get("billed_to", "tenant"),
            "case_sensitive": each.get("case_sensitive", True),
            **{
                name: each.get(name, []) for name in ("auth_env", "model_prefixes", "model_aliases")
            },
        }
    for each in content["runtimes"]:
        menu = listed(each)
        said[key(kind="runtime", runtime=each["name"])] = {
            "default_model": each.get("default_model", menu[0] if menu else None),
            "model_policy": each.get("model_policy", "registered"),
        }
        arms = each.get("arms", [])
        lists[key(of="provider", runtime=each["name"])] = [arm["provider"] for arm in arms]
        for arm in arms:
            names = {"runtime": each["name"], "provider": arm["provider"]}
            said[key(kind="arm", **names)] = {}
            models = list(dict.fromkeys(arm.get("models", [])))
            lists[key(of="model", **names)] = models
            for model in models:
                said[key(kind="model", **names, model=model)] = {}
    for each in content.get("deprecations", []):
        says = {
            name: each[name] if name == "successor" else moment(each[name])
            for name in ("deprecated_at", "sunset_at", "successor")
            if name in each
        }
        for entry in said:
            names = dict(entry)
            on = each.get("runtimes", RUNTIMES)
            if (names["kind"], names.get("model")) == ("model", each["model"]):
                said[entry] = says if names["runtime"] in on else said[entry]
    for group in content.get("equivalents", []):
        said[key(kind="equivalent", models=tuple(sorted(group)))] = {}
    return said, lists


def difference(before: Json, after: Json) -> dict[str, list[Json]]:
    old, old_lists = facts(before)
    new, new_lists = facts(after)

    def entries(keys: set[Key]) -> Iterator[Json]:
        for each in keys:
            was, becomes = old.get(each, {}), new.get(each, {})
            sides = {
                "before": {name: was[name] for name in was if name not in becomes
                           or becomes[name] != was[name]},
                "after": {name: becomes[name] for name in becomes if name not in was
                          or was[name] != becomes[name]},
            }  # fmt: skip
            yield dict(each) | {side: said for side, said in sides.items() if said}

    def orders() -> Iterator[Json]:
        for each in old_lists.keys() & new_lists.keys():
            was = [name for name in old_lists[each] if name in new_lists[each]]
            becomes = [name for name in new_lists[each] if name in old_lists[each]]
            moved = {name for name, other in zip(was, becomes, strict=True) if name != other}
            if moved:
                sides = {"before": was, "after": becomes}
                yield {"kind": "order", **dict(each)} | {
                    side: [name for name in names if name in moved] for side, names in sides.items()
                }

    both = old.keys() & new.keys()
    return {
        "added": ordered(entries(new.keys() - old.keys())),
        "removed": ordered(entries(old.keys() - new.keys())),
        "changed": ordered(
            [*entries({each for each in both if old[each] != new[each]}), *orders()]
        ),
    }


def ordered(entries: Any) -> list[Json]:
    def plain(value: Any) -> Any:
        return list(value) if isinstance(value, tuple) else value

    listed = [{name: plain(value) for name, value in entry.items()} for entry in entries]
    return sorted(listed, key=lambda entry: json.dumps(entry, sort_keys=True))


def told(answer: Any) -> dict[str, list[Json]]:
    return {name: ordered(getattr(answer, name)) for name in ("added", "removed", "changed")}


def mirrored(said: dict[str, list[Json]]) -> dict[str, list[Json]]:
    """The difference of the way back."""
    swap = {"before": "after", "after": "before"}
    return {
        name: ordered(
            {swap.get(key, key): value for key, value in entry.items()} for entry in said[of]
        )
        for name, of in (("added", "removed"), ("removed", "added"), ("changed", "changed"))
    }


def derived(conn: Conn) -> list[Any]:
    """Every row of the tables that are made of the manifest."""
    return [
        conn.execute(f"select t::text from registry.{table} t order by 1".encode()).fetchall()
        for table in TABLES
    ]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(manifests(), manifests())
def test_the_difference_is_exact_and_a_restore_takes_it_back(
    conn: Conn, before: Json, after: Json
) -> None:
    with savepoint(conn):
        load(conn, manifest([], []))
        first = load(conn, before)
        tables = derived(conn)
        expected = difference(before, after)

        with nothing_written(conn):
            dry = load(conn, after, dry_run=True)
        answer = load(conn, after)
        assert told(dry) == told(answer) == expected
        assert answer.loaded == (before != after)
        # Where nothing is said to change, nothing has: equivalents are numbered by their place.
        if not any(expected.values()):
            assert derived(conn)[:-1] == tables[:-1]

        # Row by row it has become what it had become from nothing.
        changed = derived(conn)
        load(conn, manifest([], []))
        load(conn, after)
        assert derived(conn) == changed

        with nothing_written(conn):
            call(conn, "fleet.restore_registry", first.revision, dry_run=True)
        restored = call(conn, "fleet.restore_registry", first.revision)
        assert told(restored) == mirrored(expected)
        assert derived(conn) == tables
