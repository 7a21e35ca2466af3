"""Models that still run but should not be used any more: nothing is decided by it, all is said."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

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
    provider,
    rows,
    runtime,
)

SINCE = datetime(2020, 1, 1, tzinfo=UTC)
AHEAD = datetime(2110, 1, 1, tzinfo=UTC)
END = datetime(2120, 6, 1, 12, tzinfo=UTC)
RUNTIMES = [
    runtime("r", ("p", ["old", "new", "dated"]), ("q", ["old"])),
    runtime("s", ("q", ["new", "old", "other"])),
]
OLD: Json = {
    "model": "old",
    "runtimes": ["r"],
    "deprecated_at": "2020-01-01",
    "sunset_at": "2120-06-01T12:00:00Z",
    "successor": "new",
}
DATED: Json = {"model": "dated", "deprecated_at": "2110-01-01", "sunset_at": "2120-06-01T12:00:00Z"}
PROVIDERS = [provider("p", auth_env=["P"], model_prefixes=["p-"]), provider("q", auth_env=["Q"])]


def catalogue(*deprecations: Json, **keys: Any) -> Json:
    return manifest(PROVIDERS, RUNTIMES, deprecations=list(deprecations), **keys)


@pytest.fixture
def base(conn: Conn) -> Conn:
    """The transaction, with old deprecated on r, dated to be, and no workspaces."""
    load(conn, catalogue(OLD, DATED))
    return conn


def lifetime(answer: Any) -> tuple[bool, datetime | None]:
    return answer.model_deprecated, answer.model_sunset_at


def test_every_call_that_gives_a_workspace_a_deprecated_model_says_so(base: Conn) -> None:
    created = call(base, "workspace.create_workspace", "w", "r", "old")
    ws = created.workspace_id
    assert lifetime(created) == (True, END)
    assert lifetime(call(base, "workspace.get_workspace", ws)) == (True, END)
    assert lifetime(call(base, "workspace.set_model", ws, "new")) == (False, None)
    assert lifetime(call(base, "workspace.set_model", ws, "old")) == (True, END)
    assert lifetime(call(base, "workspace.change_runtime", ws, "s")) == (False, None)
    for restore, wanted in ((False, None), (True, None), (False, "old")):
        args = ws, "r", wanted, restore
        preview = call(base, "workspace.preview_runtime_change", *args)
        with base.transaction(force_rollback=True):
            change = call(base, "workspace.change_runtime", *args)
        assert lifetime(preview) == lifetime(change) == (True, END)
        assert change.model == "old"
    # Where nothing changes, too.
    call(base, "workspace.change_runtime", ws, "r")
    assert lifetime(call(base, "workspace.change_runtime", ws, "r")) == (True, END)
    # And where something else is changed.
    assert lifetime(call(base, "workspace.set_secret", ws, "P", "key")) == (True, END)
    assert lifetime(call(base, "workspace.set_secret", ws, "P", "key")) == (True, END)
    assert lifetime(call(base, "workspace.delete_secret", ws, "P")) == (True, END)
    assert lifetime(call(base, "workspace.rename_workspace", ws, "other")) == (True, END)


def test_what_is_no_longer_there_is_not_deprecated(base: Conn) -> None:
    bare, used = create(base, "r"), create(base, "r", "old")
    assert lifetime(call(base, "workspace.get_workspace", bare)) == (False, None)
    assert lifetime(call(base, "workspace.change_runtime", bare, "s")) == (False, None)
    assert lifetime(call(base, "workspace.clear_model", used)) == (False, None)
    assert lifetime(call(base, "workspace.delete_workspace", used)) == (False, None)


def test_a_model_is_deprecated_where_the_manifest_says_and_from_when_it_says(base: Conn) -> None:
    elsewhere, ahead = create(base, "s", "old"), create(base, "r", "dated")
    by_prefix = create(base, "r", "p-old")
    assert lifetime(call(base, "workspace.get_workspace", elsewhere)) == (False, None)
    assert lifetime(call(base, "workspace.get_workspace", ahead)) == (False, END)
    assert lifetime(call(base, "workspace.get_workspace", by_prefix)) == (False, None)
    everywhere = {key: value for key, value in OLD.items() if key != "runtimes"}
    load(base, catalogue(everywhere, {**DATED, "deprecated_at": "2020-01-01"}))
    assert lifetime(call(base, "workspace.get_workspace", elsewhere)) == (True, END)
    assert lifetime(call(base, "workspace.get_workspace", ahead)) == (True, END)
    load(base, catalogue())
    assert lifetime(call(base, "workspace.get_workspace", elsewhere)) == (False, None)


def test_the_list_of_models_says_since_when_until_when_and_what_instead(base: Conn) -> None:
    told = {
        entry.model: (entry.deprecated_at, entry.sunset_at, entry.successor)
        for entry in rows(base, "registry.list_models", "r")
    }
    assert told == {
        "old": (SINCE, END, "new"), "new": (None, None, None), "dated": (AHEAD, END, None),
    }  # fmt: skip
    others = rows(base, "registry.list_models", "s")
    assert {entry.deprecated_at for entry in others} == {None}


def test_a_deprecation_decides_nothing(base: Conn) -> None:
    groups = [["old", "other"]]
    for deprecations in ([], [OLD]):
        load(base, catalogue(*deprecations, equivalents=groups))
        # Through the default, which is old, and through the equivalent, which is old as well.
        assert call(base, "registry.default_model", "r")[0] == "old"
        orphan = create(base, "s", "other")
        change = call(base, "workspace.change_runtime", orphan, "r")
        assert (change.model, change.model_source) == ("old", "equivalent")
        assert lifetime(change) == ((True, END) if deprecations else (False, None))
        kept = create(base, "s", "old")
        change = call(base, "workspace.change_runtime", kept, "r")
        assert (change.model, change.model_source) == ("old", "kept")
        for credentials, by in (([], "p"), (["Q"], "q")):
            assert call(base, "registry.resolve", "r", "old", credentials)[0] == by


def test_a_replay_gets_the_answer_of_then(base: Conn) -> None:
    ws, other = create(base, "s", "new"), create(base, "s", "new")
    first = call(base, "workspace.set_model", ws, "old", request_id="a")
    second = call(base, "workspace.change_runtime", ws, "r", request_id="b")
    with_old = call(base, "workspace.change_runtime", other, "r", "old", request_id="b")
    load(base, catalogue({**OLD, "runtimes": ["s"]}))
    assert call(base, "workspace.set_model", ws, "old", request_id="a") == first
    assert call(base, "workspace.change_runtime", ws, "r", request_id="b") == second
    again = call(base, "workspace.change_runtime", other, "r", "old", request_id="b")
    assert again == with_old
    assert [lifetime(each) for each in (first, second, with_old)] == [
        (False, None), (True, END), (True, END),
    ]  # fmt: skip


# Who still uses what.


def test_deprecations_lists_who_uses_what_and_first_what_ends_first(base: Conn) -> None:
    load(
        base,
        catalogue(
            {"model": "other", "deprecated_at": "2020-01-01"},
            OLD,
            {**DATED, "sunset_at": "2115-01-01"},
        ),
    )
    on_r = sorted(create(base, "r", "old") for _ in range(3))
    open_end, ahead = create(base, "s", "other"), create(base, "r", "dated")
    for fine in (("s", "old"), ("r", "new"), ("r", None), ("r", "p-old"), ("s", "new")):
        create(base, *fine)
    with nothing_written(base):
        found = [tuple(entry) for entry in rows(base, "fleet.deprecations")]
    sooner = datetime(2115, 1, 1, tzinfo=UTC)
    assert found == [
        (ahead, "r", "dated", AHEAD, sooner, None),
        *((ws, "r", "old", SINCE, END, "new") for ws in on_r),
        (open_end, "s", "other", SINCE, None, None),
    ]
    for ws in on_r:
        call(base, "workspace.set_model", ws, "new")
    call(base, "workspace.delete_workspace", open_end)
    assert [entry.workspace_id for entry in rows(base, "fleet.deprecations")] == [ahead]


def test_a_model_that_cannot_be_read_hides_no_other(base: Conn) -> None:
    unreadable, used = create(base, "r", "old"), create(base, "r", "old")
    make_unreadable(base, unreadable)
    assert [entry.workspace_id for entry in rows(base, "fleet.deprecations")] == [used]


def test_nobody_uses_what_is_not_deprecated(conn: Conn) -> None:
    create(conn, "claude-code", "opus")
    assert rows(conn, "fleet.deprecations") == []


def test_dates_mean_the_same_in_every_session(base: Conn) -> None:
    base.execute("set local timezone = 'Asia/Kathmandu'")
    base.execute("set local datestyle = 'German, DMY'")
    with nothing_written(base):
        assert not load(base, catalogue(OLD, DATED)).loaded
    load(base, catalogue())
    load(base, catalogue(OLD, DATED))
    spoken = (
        "select to_char(sunset_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI') from registry.models"
        " where model = 'old' and runtime = 'r' and menu_position is not null"
    )
    assert one(base, spoken) == "2120-06-01 12:00"
