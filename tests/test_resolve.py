"""What the registry answers: which provider serves a model, menus, defaults and lists."""

from __future__ import annotations

import random
from itertools import product
from typing import NamedTuple

import pytest
from psycopg.types.json import Jsonb

from support import Conn, Json, call, claims, load, manifest, provider, rows, runtime, savepoint

REGISTRY = manifest(
    [
        provider(
            "ant",
            model_prefixes=["ant-", "wild.%_*"],
            model_aliases=["alias"],
            auth_env=["A", "AB"],
        ),
        provider(
            "bee", model_prefixes=["bee/", "bee:"], auth_env=["B", "AB"], billed_to="platform"
        ),
        provider(
            "cat", model_prefixes=["Kit-", "Ö-"], model_aliases=["Purr"], case_sensitive=False
        ),
        provider("eel", auth_env=["E"]),
        provider("dog", model_prefixes=["dog"], model_aliases=["dogs", "fox"]),
    ],
    [
        runtime(
            "one", ("ant", ["m1", "both", "bee/mine"]), ("bee", ["both", "m2", "m2"]), ("cat", [])
        ),
        runtime("two", ("dog", []), ("bee", ["both"]), default_model="both"),
        runtime("last", ("bee", ["x", "y", "z"]), default_model="y"),
        runtime("three", ("ant", ["all"]), ("bee", ["all"]), ("eel", ["all"])),
        runtime("names-only", ("ant", []), ("bee", [])),
        {"name": "closed"},
        {"name": "open", "model_policy": "any"},
        runtime("open-with-arms", ("ant", ["m1"]), model_policy="any"),
    ],
)


class Case(NamedTuple):
    behaviour: str
    runtime: str
    model: str
    provider: str | None
    credentials: list[str] | None = None


CASES = [
    Case("an exact id", "one", "m1", "ant"),
    Case("exact ids compare case-sensitively", "one", "M1", None),
    Case("an exact id beats the prefix of another arm", "one", "bee/mine", "ant"),
    Case("of several arms the first", "one", "both", "ant"),
    Case("of several arms the only one the credentials open", "one", "both", "bee", ["B"]),
    Case("of several arms the only open one, the first", "one", "both", "ant", ["A", "Z"]),
    Case("of several open arms the first", "one", "both", "ant", ["A", "B"]),
    Case("a credential that opens several arms decides nothing", "one", "both", "ant", ["AB"]),
    Case("the first of all arms, not of the open ones", "three", "all", "ant", ["B", "E"]),
    Case("credentials that open nothing decide nothing", "one", "both", "ant", ["Z"]),
    Case("names of credentials compare case-sensitively", "one", "both", "ant", ["b"]),
    Case("a null among the credentials opens nothing", "one", "both", "bee", ["B", None]),  # type: ignore[list-item]
    Case("credentials do not matter where one arm lists the id", "one", "m1", "ant", ["B"]),
    Case("credentials are not needed", "one", "m2", "bee", []),
    Case("a prefix", "one", "ant-1", "ant"),
    Case("a prefix is an id of its own", "one", "ant-", "ant"),
    Case("less than a prefix is nothing", "one", "ant", None),
    Case("each prefix of a provider", "one", "bee:1", "bee"),
    Case("prefixes compare case-sensitively", "one", "Ant-1", None),
    Case("a prefix is no pattern", "one", "wildXYZ", None),
    Case("a prefix is no pattern of LIKE", "one", "wild.zz*1", None),
    Case("a prefix is literal", "one", "wild.%_*1", "ant"),
    Case("a prefix stands at the beginning", "one", "my-ant-1", None),
    Case("an alias", "one", "alias", "ant"),
    Case("an alias is no prefix", "one", "alias2", None),
    Case("aliases compare case-sensitively", "one", "Alias", None),
    Case("a folded prefix", "one", "kIT-9", "cat"),
    Case("a folded alias", "one", "PURR", "cat"),
    Case("folding is for A-Z only: U+212A is no k", "one", "\u212ait-9", None),
    Case("folding is for A-Z only: other letters keep their case", "one", "ö-1", None),
    Case("a folded prefix beyond ASCII, as it is written", "one", "Ö-1", "cat"),
    Case("an alias within a prefix of the same provider", "two", "dogs", "dog"),
    Case("ids beside that alias", "two", "dogt", "dog"),
    Case("ids beyond that alias", "two", "dogs2", "dog"),
    Case("only the runtime's own arms are asked: a prefix", "two", "ant-1", None),
    Case("only the runtime's own arms are asked: an id", "two", "m1", None),
    Case("a name-only arm has its prefixes", "names-only", "bee/x", "bee"),
    Case("a federated runtime has no arms", "closed", "m1", None),
    Case("a federated runtime that takes any model has no provider", "open", "m1", None),
    Case("any model, and an arm that lists it", "open-with-arms", "m1", "ant"),
    Case("any model, and no arm that claims it", "open-with-arms", "bee/x", None),
    Case("white space around the model is not part of it", "one", " \u3000m1\u0085\n", "ant"),
    Case("white space around the runtime is not part of it", "\tone ", "m1", "ant"),
    Case("white space inside is", "one", "m 1", None),
]


@pytest.fixture
def loaded(conn: Conn) -> Conn:
    """The transaction, with the registry of this file."""
    load(conn, REGISTRY)
    return conn


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.behaviour)
def test_resolve(loaded: Conn, case: Case) -> None:
    given = {} if case.credentials is None else {"auth_env": case.credentials}
    assert call(loaded, "registry.resolve", case.runtime, case.model, **given)[0] == case.provider


def test_resolve_takes_null_credentials_for_none(loaded: Conn) -> None:
    assert call(loaded, "registry.resolve", "one", "both", auth_env=None)[0] == "ant"


def test_menu_is_the_arms_ids_in_order_the_first_occurrence_kept(loaded: Conn) -> None:
    def menu(name: str) -> list[str]:
        return [entry[0] for entry in rows(loaded, "registry.menu", name)]

    assert menu("one") == ["m1", "both", "bee/mine", "m2"]
    assert menu("last") == ["x", "y", "z"]
    assert menu("names-only") == menu("closed") == menu("open") == []


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("one", "m1"),
        ("two", "both"),
        ("last", "y"),
        ("names-only", None),
        ("closed", None),
        ("open", None),
    ],
)
def test_default_is_the_explicit_one_else_the_first_of_the_menu(
    loaded: Conn, name: str, default: str | None
) -> None:
    assert call(loaded, "registry.default_model", name)[0] == default


def test_list_runtimes(loaded: Conn) -> None:
    assert [tuple(entry) for entry in rows(loaded, "registry.list_runtimes")] == [
        ("one", "registered", "m1", 4, ["ant", "bee", "cat"]),
        ("two", "registered", "both", 1, ["dog", "bee"]),
        ("last", "registered", "y", 3, ["bee"]),
        ("three", "registered", "all", 1, ["ant", "bee", "eel"]),
        ("names-only", "registered", None, 0, ["ant", "bee"]),
        ("closed", "registered", None, 0, []),
        ("open", "any", None, 0, []),
        ("open-with-arms", "any", "m1", 1, ["ant"]),
    ]


def test_list_models_names_the_provider_that_resolve_names(loaded: Conn) -> None:
    listed = rows(loaded, "registry.list_models", "one")
    assert [tuple(entry)[:5] for entry in listed] == [
        (1, "m1", "ant", "tenant", True),
        (2, "both", "ant", "tenant", False),
        (3, "bee/mine", "ant", "tenant", False),
        (4, "m2", "bee", "platform", False),
    ]
    assert [entry.is_default for entry in rows(loaded, "registry.list_models", "last")] == [
        False,
        True,
        False,
    ]
    assert rows(loaded, "registry.list_models", "closed") == []


def test_the_catalogue_lists_its_runtimes(conn: Conn) -> None:
    listed = {
        entry.runtime: (entry.models, len(entry.providers))
        for entry in rows(conn, "registry.list_runtimes")
    }
    assert listed == {
        "claude-code": (31, 8),
        "hermes": (3, 22),
        "codex": (8, 4),
        "openclaw": (4, 7),
        "google-adk": (6, 2),
        **dict.fromkeys(["external", "kimi", "kimi-cli", "mock"], (0, 0)),
    }


# Against the definition, on random registries: short patterns over few letters often meet.

LETTERS = "abA-"
IDS = ["".join(letters) for size in (1, 2, 3) for letters in product(LETTERS, repeat=size)]


def random_registry(rng: random.Random) -> Json:
    def some(most: int, size: int) -> list[str]:
        return [
            "".join(rng.choices(LETTERS, k=rng.randint(1, size)))
            for _ in range(rng.randint(0, most))
        ]

    providers = [
        provider(
            name,
            model_prefixes=some(2, 2),
            model_aliases=some(2, 3),
            case_sensitive=rng.random() < 0.7,
            auth_env=rng.choice([["A"], ["B"], ["A", "B"], []]),
        )
        for name in "pqr"[: rng.randint(2, 3)]
    ]
    arms = [(of["name"], some(3, 2)) for of in rng.sample(providers, len(providers))]
    return manifest(providers, [runtime("r", *arms)])


def expected(registry: Json, model: str, credentials: list[str]) -> str | None:
    """resolve() as the glossary defines it, for the only runtime of a registry without overlap."""
    by_name = {of["name"]: of for of in registry["providers"]}
    arms = registry["runtimes"][0]["arms"]
    exact = [arm["provider"] for arm in arms if model in arm["models"]]
    is_open = [name for name in exact if set(by_name[name]["auth_env"]) & set(credentials)]
    if exact:
        return str(is_open[0] if len(is_open) == 1 else exact[0])
    return next((arm["provider"] for arm in arms if claims(by_name[arm["provider"]], model)), None)


def test_random_registries_resolve_as_defined_and_overlap_is_refused(conn: Conn) -> None:
    rng = random.Random(5)
    tally = {"loaded": 0, "refused": 0}
    for _ in range(150):
        registry = random_registry(rng)
        overlap = any(sum(claims(of, model) for of in registry["providers"]) > 1 for model in IDS)
        problems = rows(conn, "registry.manifest_problems", Jsonb(registry))
        assert bool(problems) == overlap, registry
        tally["refused" if overlap else "loaded"] += 1
        if overlap:
            continue
        with savepoint(conn):
            load(conn, registry)
            for credentials in ([], ["A"], ["A", "B"]):
                got = conn.execute(
                    "select id, registry.resolve('r', id, %s) from unnest(%s::text[]) as id",
                    [credentials, IDS],
                ).fetchall()
                assert dict(got) == {
                    model: expected(registry, model, credentials) for model in IDS
                }, registry
    assert min(tally.values()) > 30, tally
