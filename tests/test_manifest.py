"""What makes a manifest loadable: the JSON Schema, the checks in SQL, the packaged catalogue."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
import yaml
from psycopg.types.json import Jsonb

from databases import SQL
from support import (
    MANIFEST,
    REFERENCE,
    Conn,
    Json,
    claims,
    load,
    manifest,
    provider,
    refused,
    rows,
    runtime,
)

SCHEMA = json.loads((SQL / "registry" / "manifest.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

P = {"name": "p", "model_prefixes": ["p-"], "model_aliases": ["pal"], "auth_env": ["KEY"]}
GOOD = manifest(
    [P, provider("q", model_prefixes=["q-"], case_sensitive=False)],
    [runtime("r", ("p", ["m", "n"]), ("q", []), default_model="n"), {"name": "s"}],
    equivalents=[["m", "n"]],
    deprecations=[
        {"model": "m", "deprecated_at": "2026-03-01", "sunset_at": "2026-09-01", "successor": "n"},
        {"model": "n", "runtimes": ["r"], "deprecated_at": "2026-03-01T12:00:00Z"},
    ],
)
ABSENT = object()


def broken(path: str, value: Any) -> Json:
    """GOOD with the value at a path (keys and indexes, with dots) replaced, added or taken out."""
    copy: Json = json.loads(json.dumps(GOOD))
    way: list[Any] = [int(step) if step.isdigit() else step for step in path.split(".")]
    *way, last = way
    place: Any = copy
    for step in way:
        place = place[step]
    if value is ABSENT:
        del place[last]
    elif isinstance(place, list):
        place.insert(last, value)
    else:
        place[last] = value
    return copy


def problems(conn: Conn, candidate: Any) -> list[tuple[str, str]]:
    return [tuple(found) for found in rows(conn, "registry.manifest_problems", Jsonb(candidate))]


BAD_IDS = {
    "empty": "",
    "blank": "  ",
    "blank beyond ASCII": "\u3000\u2003",
    "padded": " x",
    "padded after": "x ",
    "padded with a no-break space": "\u00a0x",
    "a line feed at the end": "x\n",
    "a carriage return at the end": "x\r",
    "a line feed inside": "x\ny",
    "a tab inside": "x\ty",
    "an escape": "x\x1by",
    "a file separator at the end": "x\x1c",
    "DEL": "x\x7fy",
    "a C1 control": "x\u009by",
    "a next line inside": "x\u0085y",
    "a next line at the end": "x\u0085",
    "a line separator inside": "x\u2028y",
    "a paragraph separator at the end": "x\u2029",
    "256 characters": "x" * 256,
    "no string": 7,
    "null": None,
    "a list": ["x"],
}
ID_PLACES = {
    "providers.0.name": "providers[0].name",
    "providers.0.auth_env.1": "providers[0].auth_env[1]",
    "providers.0.model_prefixes.1": "providers[0].model_prefixes[1]",
    "providers.1.model_aliases": "providers[1].model_aliases[0]",
    "runtimes.1.name": "runtimes[1].name",
    "runtimes.0.default_model": "runtimes[0].default_model",
    "runtimes.0.arms.1.provider": "runtimes[0].arms[1].provider",
    "runtimes.0.arms.0.models.2": "runtimes[0].arms[0].models[2]",
    "equivalents.0.2": "equivalents[0][2]",
    "deprecations.0.model": "deprecations[0].model",
    "deprecations.0.successor": "deprecations[0].successor",
    "deprecations.1.runtimes.1": "deprecations[1].runtimes[1]",
}
LONG_ENOUGH = "é" * 127 + "x"  # 255 bytes
TEXT_WITH_SQL = "'; drop table registry.state; --\"${x}\\"


def ids_at(place: str, value: Any) -> Json:
    return broken(place, [value] if place.endswith("aliases") else value)


@pytest.mark.parametrize("place", ID_PLACES)
def test_a_bad_id_is_refused_by_schema_and_sql_at_its_path(conn: Conn, place: str) -> None:
    for name, value in BAD_IDS.items():
        candidate = ids_at(place, value)
        assert not VALIDATOR.is_valid(candidate), name
        assert ID_PLACES[place] in [path for path, _ in problems(conn, candidate)], name


@pytest.mark.parametrize(
    "value", [LONG_ENOUGH, TEXT_WITH_SQL, "a b", "\u200bx", "\ufeffx", "模型", "😀"]
)
def test_any_other_text_is_an_id_for_schema_and_sql(conn: Conn, value: str) -> None:
    for place in ID_PLACES:
        candidate = ids_at(place, value)
        assert VALIDATOR.is_valid(candidate), place
        # It may stand for nothing, but as an id it is fine.
        said = [problem for path, problem in problems(conn, candidate) if path == ID_PLACES[place]]
        assert said in (
            [],
            ["is not the name of a provider"],
            [OFF_THE_MENU],
            [ON_NO_MENU],
            [NOT_THERE],
        )


NOT_THERE = "is not a runtime with this model on its menu"
TWICE = "is deprecated by an earlier entry for the same runtime"
NO_TIME = "must be a date or a time in UTC, such as 2026-03-01 or 2026-03-01T12:00:00Z"
OFF_THE_MENU = "is not on the menu of this runtime"
ON_NO_MENU = "is not on the menu of any runtime"

SHAPES = [
    # path of the change, value, path of the problem
    ("schema_version", ABSENT, "schema_version"),
    ("schema_version", 2, "schema_version"),
    ("schema_version", 0, "schema_version"),
    ("schema_version", 1.5, "schema_version"),
    ("schema_version", "1", "schema_version"),
    ("schema_version", True, "schema_version"),
    ("schema_version", None, "schema_version"),
    ("providers", ABSENT, "providers"),
    ("providers", {}, "providers"),
    ("providers", None, "providers"),
    ("runtimes", ABSENT, "runtimes"),
    ("runtimes", "r", "runtimes"),
    ("equivalents", {"a": "b"}, "equivalents"),
    ("equivalents", None, "equivalents"),
    ("equivalents.0", "m", "equivalents[0]"),
    ("extra", 1, "extra"),
    ("Providers", [], "Providers"),
    ("providers.0", "p", "providers[0]"),
    ("providers.0", None, "providers[0]"),
    ("providers.0.name", ABSENT, "providers[0].name"),
    ("providers.0.extra", None, "providers[0].extra"),
    ("providers.0.model_prefix", "p-", "providers[0].model_prefix"),
    ("providers.0.auth_env", "KEY", "providers[0].auth_env"),
    ("providers.0.model_prefixes", {}, "providers[0].model_prefixes"),
    ("providers.0.model_aliases", None, "providers[0].model_aliases"),
    ("providers.0.case_sensitive", "false", "providers[0].case_sensitive"),
    ("providers.0.case_sensitive", 0, "providers[0].case_sensitive"),
    ("providers.0.case_sensitive", None, "providers[0].case_sensitive"),
    ("providers.0.billed_to", "me", "providers[0].billed_to"),
    ("providers.0.billed_to", "Tenant", "providers[0].billed_to"),
    ("providers.0.billed_to", None, "providers[0].billed_to"),
    ("runtimes.1", ["s"], "runtimes[1]"),
    ("runtimes.0.name", ABSENT, "runtimes[0].name"),
    ("runtimes.0.models", ["m"], "runtimes[0].models"),
    ("runtimes.0.model_policy", "all", "runtimes[0].model_policy"),
    ("runtimes.0.model_policy", None, "runtimes[0].model_policy"),
    ("runtimes.0.arms", {"p": ["m"]}, "runtimes[0].arms"),
    ("runtimes.0.arms.0", "p", "runtimes[0].arms[0]"),
    ("runtimes.0.arms.0.provider", ABSENT, "runtimes[0].arms[0].provider"),
    ("runtimes.0.arms.1.models", "m", "runtimes[0].arms[1].models"),
    ("runtimes.0.arms.0.model", "m", "runtimes[0].arms[0].model"),
    ("deprecations", {"model": "m"}, "deprecations"),
    ("deprecations", None, "deprecations"),
    ("deprecations.0", "m", "deprecations[0]"),
    ("deprecations.0.model", ABSENT, "deprecations[0].model"),
    ("deprecations.0.model", ["m"], "deprecations[0].model"),
    ("deprecations.0.runtime", "r", "deprecations[0].runtime"),
    ("deprecations.0.runtimes", "r", "deprecations[0].runtimes"),
    ("deprecations.0.runtimes", None, "deprecations[0].runtimes"),
    ("deprecations.0.runtimes", [], "deprecations[0].runtimes"),
    ("deprecations.0.successor", None, "deprecations[0].successor"),
    ("deprecations.0.deprecated_at", ABSENT, "deprecations[0].deprecated_at"),
    ("deprecations.0.deprecated_at", None, "deprecations[0].deprecated_at"),
    ("deprecations.0.deprecated_at", 2026, "deprecations[0].deprecated_at"),
    ("deprecations.0.sunset_at", True, "deprecations[0].sunset_at"),
    *(
        ("deprecations.0.sunset_at", text, "deprecations[0].sunset_at")
        for text in (
            "", "soon", "2026", "2026-9-1", "2026-09", "01.09.2026", "2026-09-01 ", "2026-09-01\n",
            "2026-09-01 12:00:00Z", "2026-09-01T12:00:00", "2026-09-01T12:00:00+02:00",
            "2026-09-01T24:00:00Z", "2026-09-01T12:60:00Z", "2026-09-01T12:00:60Z",
            "2026-09-01T12:00Z", "2026-09-01T12:00:00.5Z", "\u0662\u0660\u0662\u0666-09-01",
            "infinity", "tomorrow",
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("at", "value", "path"), SHAPES)
def test_a_bad_shape_is_refused_by_schema_and_sql_at_its_path(
    conn: Conn, at: str, value: Any, path: str
) -> None:
    candidate = broken(at, value)
    assert not VALIDATOR.is_valid(candidate)
    assert path in [found for found, _ in problems(conn, candidate)]


def test_a_bad_shape_is_told_in_english(conn: Conn) -> None:
    for at, value, told in (
        ("providers", {}, ("providers", "must be an array")),
        ("providers.0.auth_env", "KEY", ("providers[0].auth_env", "must be an array")),
        ("equivalents.0", "m", ("equivalents[0]", "must be an array")),
        ("providers.0", "p", ("providers[0]", "must be an object")),
        ("providers.0.name", 7, ("providers[0].name", "must be a string")),
        ("providers.0.case_sensitive", 0, ("providers[0].case_sensitive", "must be a boolean")),
    ):
        assert told in problems(conn, broken(at, value))


@pytest.mark.parametrize("candidate", [None, [], "manifest", 1, True, [GOOD]])
def test_what_is_no_object_is_refused_by_schema_and_sql(conn: Conn, candidate: Any) -> None:
    assert not VALIDATOR.is_valid(candidate)
    assert problems(conn, candidate) == [("", "must be an object")]


LOADABLE = [
    GOOD,
    MANIFEST,
    manifest([], []),
    broken("schema_version", 1.0),
    broken("equivalents", []),
    broken("equivalents", ABSENT),
    broken("equivalents.0", []),
    broken("deprecations", []),
    broken("deprecations", ABSENT),
    broken("deprecations.0.successor", ABSENT),
    broken("deprecations.0.sunset_at", ABSENT),
    broken("deprecations.0.sunset_at", "2026-03-01T00:00:01Z"),
    broken("deprecations.0.deprecated_at", "0001-01-01"),
    broken("deprecations.0.runtimes", ["r"]),
    broken("providers.0.case_sensitive", True),
    broken("providers.0.billed_to", "platform"),
    broken("runtimes.1.model_policy", "any"),
    broken("runtimes.1.arms", []),
    broken("runtimes.0.default_model", ABSENT),
    broken("runtimes.0.arms.0.models.2", "m"),
    broken("runtimes.0.arms.1.models", ["m"]),
    broken("runtimes.0.arms.1.models", ABSENT),
    broken("providers.0.model_prefixes.1", "p-longer"),
    broken("providers.0.model_aliases.1", "p-alias"),
    broken("providers.0.model_prefixes.1", "p-"),
    broken("providers.2", provider("P")),
    broken("providers.2", provider("unused", model_prefixes=["p-"])),
    broken("runtimes.2", runtime("R", ("p", []))),
]


@pytest.mark.parametrize("number", range(len(LOADABLE)))
def test_a_good_manifest_is_accepted_by_schema_and_sql_and_loads(conn: Conn, number: int) -> None:
    candidate = LOADABLE[number]
    assert list(VALIDATOR.iter_errors(candidate)) == []
    assert problems(conn, candidate) == []
    conn.execute("truncate workspace.workspaces cascade")
    assert load(conn, candidate).loaded == (candidate != MANIFEST)


def two_claims(first: Json, second: Json) -> Json:
    """One runtime with two providers, each with what it claims."""
    providers = [provider("first", **first), provider("second", **second)]
    return manifest(providers, [runtime("r", ("first", ["m"]), ("second", []))])


def prefixes(*listed: str, **keys: object) -> Json:
    return {"model_prefixes": list(listed), **keys}


def aliases(*listed: str, **keys: object) -> Json:
    return {"model_aliases": list(listed), **keys}


FOLDED = {"case_sensitive": False}
OVERLAPS = [
    (prefixes("gpt-"), prefixes("gpt-")),
    (prefixes("gpt"), prefixes("x", "gpt-5")),
    (prefixes("gpt-5"), prefixes("gpt")),
    (prefixes("gpt"), aliases("gpt-5")),
    (aliases("gpt-5"), prefixes("gpt")),
    (aliases("gpt"), prefixes("gpt")),
    (aliases("gpt"), aliases("gpt")),
    (prefixes("GPT-5"), prefixes("gpt", **FOLDED)),
    (prefixes("gpt", **FOLDED), prefixes("GPT-5")),
    (prefixes("GPT", **FOLDED), aliases("gPt-x", **FOLDED)),
    (aliases("Gpt"), aliases("gpt", **FOLDED)),
]
NO_OVERLAPS = [
    (prefixes("gpt-"), prefixes("gpt_")),
    (prefixes("gpt-5"), aliases("gpt")),
    (aliases("gpt-5"), aliases("gpt")),
    (prefixes("gpt"), prefixes("GPT-5")),
    (aliases("gpt"), aliases("GPT")),
    (prefixes("k", **FOLDED), prefixes("\u212a")),
    (prefixes("ö", **FOLDED), prefixes("Ö", **FOLDED)),
    (prefixes(), prefixes("x")),
]


@pytest.mark.parametrize(("first", "second"), OVERLAPS)
def test_providers_of_one_runtime_that_could_claim_one_id_are_refused_once(
    conn: Conn, first: Json, second: Json
) -> None:
    candidate = two_claims(first, second)
    assert VALIDATOR.is_valid(candidate)
    ((path, problem),) = problems(conn, candidate)
    assert "could claim the same id" in problem
    # The two places, and the runtime where they meet.
    places = re.findall(r"providers\[(\d)\]\.model_(?:prefixes|aliases)\[\d\]", f"{path} {problem}")
    assert sorted(places) == ["0", "1"]
    assert "runtimes[0]" in problem
    # In two runtimes they do not meet.
    apart = [runtime("r", ("first", [])), runtime("s", ("second", []))]
    assert problems(conn, {**candidate, "runtimes": apart}) == []


@pytest.mark.parametrize(("first", "second"), NO_OVERLAPS)
def test_claims_beside_each_other_are_no_problem(conn: Conn, first: Json, second: Json) -> None:
    assert problems(conn, two_claims(first, second)) == []


def test_an_overlap_is_found_at_its_place_among_what_is_no_text(conn: Conn) -> None:
    candidate = two_claims({"model_prefixes": [7, None, "gpt"]}, prefixes("x", "gp"))
    assert [path for path, _ in problems(conn, candidate)] == [
        "providers[0].model_prefixes[0]",
        "providers[0].model_prefixes[1]",
        "providers[0].model_prefixes[2]",
    ]


def test_an_overlap_names_no_model(conn: Conn) -> None:
    candidate = two_claims(prefixes("some"), aliases("some-model"))
    refusal = refused(conn, "fleet.load_registry", Jsonb(candidate))
    assert refusal.code == "REGISTRY_INVALID"
    assert "some-model" not in refusal.text


def test_an_overlap_of_illegal_patterns_is_cheap_and_says_nothing_long(conn: Conn) -> None:
    long = "x" * 300_000
    conn.execute("set local statement_timeout = '10s'")
    refusal = refused(
        conn, "fleet.load_registry", Jsonb(two_claims(prefixes(long), prefixes(long)))
    )
    assert (refusal.sqlstate, refusal.code) == ("PT422", "REGISTRY_INVALID")
    assert len(refusal.text) < 10_000


MEANINGS = [
    ("providers.2", provider("p"), ("providers[2].name", "is the name of an earlier provider")),
    ("runtimes.2", runtime("r"), ("runtimes[2].name", "is the name of an earlier runtime")),
    (
        "runtimes.0.arms.2",
        {"provider": "p"},
        ("runtimes[0].arms[2].provider", "is the provider of an earlier arm"),
    ),
    (
        "runtimes.1.arms",
        [{"provider": "P"}],
        ("runtimes[1].arms[0].provider", "is not the name of a provider"),
    ),
    ("runtimes.0.default_model", "q-1", ("runtimes[0].default_model", OFF_THE_MENU)),
    ("runtimes.0.default_model", "N", ("runtimes[0].default_model", OFF_THE_MENU)),
    ("runtimes.1.default_model", "m", ("runtimes[1].default_model", OFF_THE_MENU)),
    ("equivalents.0.2", "p-1", ("equivalents[0][2]", ON_NO_MENU)),
    ("equivalents.1", ["m"], ("equivalents[1][0]", "stands in the equivalents before")),
    ("equivalents.0.1", "m", ("equivalents[0][1]", "stands in the equivalents before")),
    ("deprecations.0.model", "q-1", ("deprecations[0].model", ON_NO_MENU)),
    ("deprecations.0.successor", "q-1", ("deprecations[0].successor", ON_NO_MENU)),
    (
        "deprecations.0.successor",
        "m",
        ("deprecations[0].successor", "is the deprecated model itself"),
    ),
    ("deprecations.1.runtimes.1", "s", ("deprecations[1].runtimes[1]", NOT_THERE)),
    ("deprecations.1.runtimes.1", "R", ("deprecations[1].runtimes[1]", NOT_THERE)),
    ("deprecations.1.runtimes.1", "r", ("deprecations[1].runtimes[1]", TWICE)),
    (
        "deprecations.2",
        {"model": "n", "deprecated_at": "2026-03-01"},
        ("deprecations[2].model", TWICE),
    ),
    (
        "deprecations.2",
        {"model": "m", "runtimes": ["r"], "deprecated_at": "2026-03-01"},
        ("deprecations[2].runtimes[0]", TWICE),
    ),
    (
        "deprecations.0.sunset_at",
        "2026-03-01",
        ("deprecations[0].sunset_at", "must be after deprecated_at"),
    ),
    ("deprecations.0.deprecated_at", "2026-02-30", ("deprecations[0].deprecated_at", NO_TIME)),
    ("deprecations.0.sunset_at", "0000-01-01", ("deprecations[0].sunset_at", NO_TIME)),
    (
        "runtimes.0.arms.0.models.2",
        "é" * 128,
        (ID_PLACES["runtimes.0.arms.0.models.2"], "is longer than 255 bytes"),
    ),
]


@pytest.mark.parametrize(("at", "value", "problem"), MEANINGS)
def test_what_only_sql_can_see_is_refused_at_its_path(
    conn: Conn, at: str, value: Any, problem: tuple[str, str]
) -> None:
    candidate = broken(at, value)
    assert VALIDATOR.is_valid(candidate)
    assert problems(conn, candidate) == [problem]


NUMBERED = [f"vendor-{number}" for number in range(10_000)]  # vendor-10 begins with vendor-1
BIG = {
    "prefixes of one provider": manifest(
        [provider("p", model_prefixes=NUMBERED[:4000])], [runtime("r", ("p", ["m"]))]
    ),
    "prefixes of two providers": manifest(
        [
            provider("p", model_prefixes=[f"p-{text}" for text in NUMBERED[:2000]]),
            provider("q", model_prefixes=[f"q-{text}" for text in NUMBERED[:2000]]),
        ],
        [runtime("r", ("p", ["m"]), ("q", []))],
    ),
    "runtimes": manifest([provider("p")], [runtime(text, ("p", ["m"])) for text in NUMBERED]),
}


@pytest.mark.parametrize("name", BIG)
def test_the_work_of_a_load_does_not_grow_with_the_square_of_the_manifest(
    conn: Conn, name: str
) -> None:
    conn.execute("set local statement_timeout = '15s'")  # alone, about one
    assert load(conn, BIG[name]).loaded


def test_all_problems_come_in_one_answer(conn: Conn) -> None:
    candidate = {
        "schema_version": 2,
        "comment": "x",
        "providers": [
            provider(" p", price=1),
            provider("a", model_prefixes=["gp"]),
            provider("b", model_prefixes=["gpt", ""], model_aliases=[7]),
            provider("c"),
            3,
        ],
        "runtimes": [
            runtime(
                "r", ("a", ["m"]), ("b", []), ("c", []), ("c", []), ("d", []), default_model="q"
            )
        ],
        "equivalents": [["m", "k"], "x"],
        "deprecations": [
            {"model": "k", "deprecated_at": "2026-03-01", "successor": "k"},
            {"model": "m", "runtimes": ["s"], "deprecated_at": "now", "until": "2026-09-01"},
        ],
    }
    refusal = refused(conn, "fleet.load_registry", Jsonb(candidate))
    assert (refusal.sqlstate, refusal.code) == ("PT422", "REGISTRY_INVALID")
    assert {entry["path"] for entry in refusal.detail["problems"]} == {
        "schema_version", "comment", "providers[0].name", "providers[0].price",
        "providers[2].model_prefixes[0]", "providers[2].model_prefixes[1]",
        "providers[2].model_aliases[0]", "providers[4]",
        "runtimes[0].arms[3].provider", "runtimes[0].arms[4].provider",
        "runtimes[0].default_model", "equivalents[0][1]", "equivalents[1]",
        "deprecations[0].model", "deprecations[0].successor", "deprecations[1].runtimes[0]",
        "deprecations[1].deprecated_at", "deprecations[1].until",
    }  # fmt: skip
    assert all(entry.keys() == {"path", "problem"} for entry in refusal.detail["problems"])
    assert refusal.detail["problems_total"] >= len(refusal.detail["problems"]) >= 13


def test_of_many_problems_a_hundred_are_named_and_all_counted(conn: Conn) -> None:
    candidate = manifest([provider("p")] * 151, [])
    detail = refused(conn, "fleet.load_registry", Jsonb(candidate)).detail
    assert (len(detail["problems"]), detail["problems_total"]) == (100, 150)


# The packaged catalogue.


def test_the_packaged_manifest_is_the_one_loaded(conn: Conn) -> None:
    assert VALIDATOR.is_valid(MANIFEST)
    assert len(MANIFEST["providers"]) == 32
    assert [entry["name"] for entry in MANIFEST["runtimes"] if "arms" not in entry] == [
        "external", "kimi", "kimi-cli", "mock",
    ]  # fmt: skip
    assert load(conn, MANIFEST).loaded is False


PATTERNS = [
    text
    for entry in MANIFEST["providers"]
    for key in ("model_prefixes", "model_aliases")
    for text in entry.get(key, [])
]
LISTED = [
    model
    for entry in MANIFEST["runtimes"]
    for arm in entry.get("arms", [])
    for model in arm.get("models", [])
]
PROBES = sorted(
    {
        head + mark + tail
        for text in [*PATTERNS, *LISTED, *(re.split("[-:/]", text)[0] for text in PATTERNS)]
        for head in (text, text.upper(), text.title(), text[:-1], "x" + text)
        for mark in ("", "-", ":", "/", ".", "m")
        for tail in ("", "x")
    }
)
CATALOGUE = REFERENCE / "registry.yaml"
REFERENCES = [yaml.safe_load(CATALOGUE.read_text())] if CATALOGUE.exists() else []


def test_the_packaged_manifest_has_the_facts_of_the_reference() -> None:
    assert (len(MANIFEST["providers"]), len(MANIFEST["runtimes"])) == (32, 9)
    for reference in REFERENCES:
        compare_with(reference)


def compare_with(reference: Json) -> None:
    ours = {entry["name"]: entry for entry in MANIFEST["providers"]}
    theirs = {entry["name"]: entry for entry in reference["providers"]}
    assert list(ours) == list(theirs)
    for name, entry in theirs.items():
        assert ours[name]["billed_to"] == ("platform" if entry["platform"] else "tenant"), name
        assert ours[name]["auth_env"] == entry["auth_env"], name
        assert set(ours[name].get("model_aliases", [])) >= set(entry["model_aliases"]), name
        for probe in PROBES:
            pattern = re.search(entry["model_prefix_match"], probe) is not None
            assert claims(ours[name], probe) == (pattern or probe in entry["model_aliases"]), (
                name,
                probe,
            )

    arms = {
        entry["name"]: [(arm["provider"], arm["models"]) for arm in entry["arms"]]
        for entry in reference["runtimes"]
    } | {name: [] for name in reference["known_not_in_registry"]}
    assert arms == {
        entry["name"]: [(arm["provider"], arm.get("models", [])) for arm in entry.get("arms", [])]
        for entry in MANIFEST["runtimes"]
    }
    assert not any(
        {"default_model", "model_policy"} & entry.keys() for entry in MANIFEST["runtimes"]
    )
