"""Which model a switch of the runtime chooses, rule by rule and where two rules meet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from support import (
    Conn,
    Json,
    call,
    create,
    load,
    make_unreadable,
    manifest,
    nothing_written,
    one,
    pair,
    provider,
    refused,
    rows,
    runtime,
)

REGISTRY = manifest(
    [
        provider("own", model_prefixes=["own-"]),
        provider("plat", billed_to="platform", model_prefixes=["plat-"]),
        provider("oth", model_aliases=["nick"], model_prefixes=["oth-"]),
    ],
    [
        runtime("home", ("own", ["a", "b", "c", "d", "same"]), ("plat", ["x"])),
        runtime("away", ("oth", ["p", "q", "same"]), ("plat", []), default_model="q"),
        runtime("twin", ("plat", ["t1"]), ("oth", ["t-b", "t-a2", "t-a", "oth-d"])),
        runtime("names", ("oth", []), ("plat", [])),
        {"name": "closed"},
        {"name": "open", "model_policy": "any"},
    ],
    equivalents=[["t-a", "a", "t-a2"], ["b", "t-b", "c"], ["x", "q"], ["d", "oth-d"]],
)
Step = tuple[Any, ...]  # a function of schema workspace, and what it is given after the workspace
# One line a case: what it shows | the workspace's past | the switch | the answer.
# A past begins with the runtime and model of the creation; `set M` and `clear` are the functions on
# the model, anything else is a runtime to switch to, and the model asked for. `-` is no model.
CHOSEN = """
the requested model            | home a                   | away p         | requested p oth
requested by prefix            | home a                   | away plat-9    | requested plat-9 plat
requested by alias             | home a                   | names nick     | requested nick oth
requested, any is accepted     | home a                   | open zz        | requested zz -
requested before kept          | home same                | away p         | requested p oth
requested what would be kept   | home same                | away same      | requested same oth
requested before restored      | away p; home             | away q restore | requested q oth
requested where there was none | home -                   | away p         | requested p oth
requested on the same runtime  | home a                   | home b         | requested b own
no model stays no model        | home -                   | away           | none - -
no model and no default        | home -                   | closed         | none - -
none before restored           | away p; home; clear      | away restore   | none - -
kept by exact id               | home same                | away           | kept same oth
kept by prefix                 | home plat-1              | names          | kept plat-1 plat
kept, any is accepted          | home a                   | open           | kept a -
kept before restored           | away p; home; set same   | away restore   | kept same oth
kept before the default        | twin plat-7              | away           | kept plat-7 plat
restored                       | away p; home             | away restore   | restored p oth
restored only if asked         | away p; home             | away           | default q oth
restored: last, not first      | away p; set nick; home   | away restore   | restored nick oth
restored: of the last stay     | away p; home; away; home | away restore   | restored q oth
restored on name-only arms     | names oth-1; home        | names restore  | restored oth-1 oth
restored though cleared there  | away p; clear; home a    | away restore   | restored p oth
restored before an equivalent  | twin t-a; home; set b    | twin restore   | restored t-a oth
never there: an equivalent     | home a                   | twin restore   | equivalent t-a2 oth
never there: the default       | home a                   | away restore   | default q oth
no model there: the default    | away -; home a           | away restore   | default q oth
equivalent: first on the menu  | home a                   | twin           | equivalent t-a2 oth
equivalent of its own list     | home c                   | twin           | equivalent t-b oth
equivalent, the other way      | twin t-b                 | home           | equivalent b own
equivalent before the default  | open t-b                 | home           | equivalent b own
equivalent that is the default | home x                   | away           | equivalent q oth
equivalents heed the case      | open A                   | twin           | default t1 plat
equivalent only from the menu  | home d                   | away           | default q oth
the explicit default           | home b                   | away           | default q oth
the first of the menu          | away p                   | home           | default a own
a default for an unknown model | open zz                  | home           | default a own
"""
REFUSED = """
requested: not the current one | home same        | away nope      | unregistered p q same
requested: not its equivalent  | home x           | away x         | unregistered p q same
requested: not the past one    | away p; home     | away a restore | unregistered p q same
requested: case counts         | home a           | away P         | unregistered p q same
requested of name-only arms    | home a           | names a        | unregistered
requested of a closed runtime  | home -           | closed a       | unregistered
requested on the same runtime  | home a           | home p         | unregistered a b c d same x
name-only arms: no default     | home a           | names          | no-default
closed: no default             | home same        | closed         | no-default
no restoring on name-only arms | names -; home a  | names restore  | no-default
no restoring on a closed one   | closed -; home a | closed restore | no-default
"""
CODES = {"unregistered": "MODEL_NOT_REGISTERED", "no-default": "NO_DEFAULT_MODEL"}
RESTORE = {"restore": True}


@dataclass(frozen=True)
class Case:
    """A line of the tables above."""

    shows: str
    start: list[str | None]
    past: list[Step]
    target: str
    named: Json
    answer: list[str | None]


def read(table: str) -> list[Case]:
    return [
        Case(
            shows,
            words(past.split(";")[0]),
            [step(text) for text in past.split(";")[1:]],
            switch.split()[0],
            dict(option(word) for word in switch.split()[1:]),
            words(answer),
        )
        for line in table.strip().splitlines()
        for shows, past, switch, answer in [[part.strip() for part in line.split("|")]]
    ]


def words(text: str) -> list[str | None]:
    return [None if word == "-" else word for word in text.split()]


def option(word: str) -> tuple[str, object]:
    return ("restore", True) if word == "restore" else ("model", word)


def step(text: str) -> Step:
    match text.split():
        case ["clear"]:
            return ("clear_model",)
        case ["set", model]:
            return ("set_model", model)
        case args:
            return ("change_runtime", *args)


@pytest.fixture
def loaded(conn: Conn) -> Conn:
    """The transaction, with the registry of this file."""
    load(conn, REGISTRY)
    return conn


def with_past(conn: Conn, start: Sequence[str | None], past: Iterable[Step] = ()) -> UUID:
    runtime_name, model = start
    ws = create(conn, runtime_name, model)
    for function, *args in past:
        call(conn, f"workspace.{function}", ws, *args)
    return ws


def sealed(conn: Conn, ws: UUID) -> list[Any]:
    """The stored secret, row version included."""
    return conn.execute(
        "select sealed, key_id, updated_at, xmin::text, ctid::text from workspace.secrets"
        " where workspace_id = %s",
        [ws],
    ).fetchall()


@pytest.mark.parametrize("case", read(CHOSEN), ids=lambda case: case.shows)
def test_a_switch_chooses(loaded: Conn, case: Case) -> None:
    ws = with_past(loaded, case.start, case.past)
    before = pair(loaded, ws)
    bytes_before = sealed(loaded, ws)
    with nothing_written(loaded):
        preview = call(loaded, "workspace.preview_runtime_change", ws, case.target, **case.named)
    change = call(loaded, "workspace.change_runtime", ws, case.target, **case.named)

    source, model, provider = case.answer
    assert (change.model_source, change.model, change.provider) == (source, model, provider)
    assert change.model_was_reset == (source in ("restored", "equivalent", "default"))
    assert (change.previous_runtime, change.previous_model) == before[:2]
    assert (change.changed, change.needs_restart, change.version) == (True, True, before[2] + 1)
    # The preview said the same of the version it saw.
    assert preview == change._replace(version=before[2])
    # It is what is stored, and what the history says.
    state = call(loaded, "workspace.get_workspace", ws)
    assert (state.runtime, state.model, state.version) == (case.target, model, change.version)
    assert (state.provider, state.billed_to) == (change.provider, change.billed_to)
    entry = rows(loaded, "workspace.history", ws)[-1]
    assert {name: getattr(entry, name) for name in entry._fields if name in change._fields} == {
        name: getattr(change, name) for name in change._fields if name in entry._fields
    }
    if model == before[1]:
        assert sealed(loaded, ws) == bytes_before


@pytest.mark.parametrize("case", read(REFUSED), ids=lambda case: case.shows)
def test_a_switch_is_refused(loaded: Conn, case: Case) -> None:
    ws = with_past(loaded, case.start, case.past)
    code, *valid = case.answer
    for function in ("workspace.preview_runtime_change", "workspace.change_runtime"):
        with nothing_written(loaded):
            refusal = refused(loaded, function, ws, case.target, **case.named)
        assert (refusal.sqlstate, refusal.code) == ("PT422", CODES[str(code)])
        assert refusal.detail == {
            "code": refusal.code,
            "runtime": case.target,
            "valid_models": valid,
            "valid_models_total": len(valid),
        }
        assert refusal.hint


def test_of_many_valid_models_fifty_are_named_in_order_and_all_counted(loaded: Conn) -> None:
    many = [f"many-{number}" for number in range(120, 0, -1)]
    load(loaded, manifest([provider("own")], [runtime("home", ("own", many)), {"name": "open"}]))
    detail = refused(loaded, "workspace.create_workspace", "w", "home", "nope").detail
    assert (detail["valid_models"], detail["valid_models_total"]) == (many[:50], 120)


def test_another_workspaces_history_is_not_restored(loaded: Conn) -> None:
    with_past(loaded, ("away", "p"), [step("home")])
    ws = create(loaded, "home", "a")
    change = call(loaded, "workspace.change_runtime", ws, "away", restore=True)
    assert (change.model_source, change.model) == ("default", "q")


def test_a_past_model_that_is_no_longer_routable_is_not_restored(loaded: Conn) -> None:
    ws = with_past(loaded, ("away", "p"), [step("home x")])
    without_p = [
        {**entry, "arms": [{"provider": "oth", "models": ["q"]}]}
        if entry["name"] == "away"
        else entry
        for entry in REGISTRY["runtimes"]
    ]
    load(loaded, {**REGISTRY, "runtimes": without_p})
    change = call(loaded, "workspace.change_runtime", ws, "away", restore=True)
    assert (change.model_source, change.model) == ("equivalent", "q")


def test_a_past_model_that_cannot_be_read_is_not_restored(loaded: Conn) -> None:
    ws = with_past(loaded, ("away", "p"), [step("home")])
    loaded.execute(
        "update workspace.changes set key_id = 7 where sealed is not null and runtime = 'away'"
    )
    change = call(loaded, "workspace.change_runtime", ws, "away", restore=True)
    assert (change.model_source, change.model) == ("default", "q")


def test_a_model_orphaned_where_it_is_is_replaced_by_a_switch_to_the_same_runtime(
    loaded: Conn,
) -> None:
    ws = create(loaded, "home", "c")
    loaded.execute("delete from registry.models where model = 'c'")
    assert call(loaded, "workspace.get_workspace", ws).model_registered is False
    change = call(loaded, "workspace.change_runtime", ws, "home")
    assert (change.changed, change.needs_restart) == (True, True)
    # Its equivalent on the same menu comes before the default.
    assert (change.model_source, change.model) == ("equivalent", "b")


# A stored model that cannot be read.

UNREADABLE = {
    "bytes that are no text": r"'\xff61'::bytea, null::integer",
    "a zero byte": r"'\x6100'::bytea, null::integer",
    "bytes of a key we do not have": "convert_to('a', 'UTF8'), 1",
}


@pytest.fixture(params=UNREADABLE)
def unreadable(loaded: Conn, request: pytest.FixtureRequest) -> UUID:
    """A workspace on home whose model cannot be read."""
    ws = create(loaded, "home", "a")
    loaded.execute(
        f"update workspace.secrets set (sealed, key_id) = (select {UNREADABLE[request.param]})"
        " where workspace_id = %s",
        [ws],
    )
    return ws


@pytest.mark.parametrize("target", ["home", "away", "open"])
def test_an_unreadable_model_blocks_whatever_needs_it(
    loaded: Conn, unreadable: UUID, target: str
) -> None:
    calls: list[tuple[str, tuple[Any, ...], Json]] = [
        ("change_runtime", (target,), {}),
        ("change_runtime", (target,), RESTORE),
        ("preview_runtime_change", (target,), {}),
        ("get_workspace", (), {}),
    ]
    for function, args, named in calls:
        with nothing_written(loaded):
            refusal = refused(loaded, f"workspace.{function}", unreadable, *args, **named)
        assert (refusal.sqlstate, refusal.code) == ("PT500", "SECRET_UNREADABLE")
        assert refusal.detail == {"code": "SECRET_UNREADABLE", "workspace_id": str(unreadable)}


REPLACING = [
    (step("away p"), "away", "p"),
    (step("home a"), "home", "a"),
    (step("set a"), "home", "a"),
    (step("clear"), "home", None),
    (("delete_workspace",), None, None),
]


@pytest.mark.parametrize(("choice", "now", "model"), REPLACING)
def test_an_explicit_choice_replaces_an_unreadable_model(
    loaded: Conn, unreadable: UUID, choice: Step, now: str | None, model: str | None
) -> None:
    change = call(loaded, f"workspace.{choice[0]}", unreadable, *choice[1:])
    assert (change.changed, change.previous_model, change.version) == (True, None, 2)
    assert (change.runtime, change.model, change.model_was_reset) == (now, model, False)
    assert one(
        loaded, "select count(*) from workspace.secrets where workspace_id = %s", unreadable
    ) == (model is not None)
    if now:
        assert pair(loaded, unreadable) == (now, model, 2)


def test_an_unreadable_model_does_not_excuse_an_unregistered_one(
    loaded: Conn, unreadable: UUID
) -> None:
    with nothing_written(loaded):
        for function, *args in (step("away a"), step("set p")):
            refusal = refused(loaded, f"workspace.{function}", unreadable, *args)
            assert refusal.code == "MODEL_NOT_REGISTERED"


def test_unreadable_models_do_not_hide_the_history(loaded: Conn) -> None:
    ws = with_past(loaded, ("home", "a"), [step("set b")])
    make_unreadable(loaded, ws)
    loaded.execute(
        "update workspace.changes set key_id = 9 where version = 1 and workspace_id = %s", [ws]
    )
    call(loaded, "workspace.set_model", ws, "c")
    history = [
        (entry.previous_model, entry.model) for entry in rows(loaded, "workspace.history", ws)
    ]
    assert history == [(None, None), ("a", "b"), (None, "c")]
