"""The story of a fleet on the packaged catalogue: a runtime is retired, another loses an arm."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from uuid import UUID

import pytest

import pyapi
from databases import Database
from pyapi import MoveEntry, move_all, orphans, reset_all_orphans
from pyapi.errors import RegistryOrphans, RuntimeInUse
from support import MANIFEST, Conn, Json, nothing_written, one, unrecorded

WORKSPACES = 10_000
RETIRED, HEIR, TRIMMED = "google-adk", "hermes", "claude-code"
Pairs = dict[UUID, tuple[str, str | None]]


def trimmed() -> Json:
    """The catalogue with TRIMMED's platform arm gone."""
    content = deepcopy(MANIFEST)
    (entry,) = (each for each in content["runtimes"] if each["name"] == TRIMMED)
    entry["arms"] = [arm for arm in entry["arms"] if arm["provider"] != "platform"]
    listed = {model for arm in entry["arms"] for model in arm.get("models", [])}
    if entry.get("default_model") not in listed:
        entry.pop("default_model", None)
    return content


def retired() -> Json:
    """That, and RETIRED gone."""
    content = trimmed()
    content["runtimes"] = [each for each in content["runtimes"] if each["name"] != RETIRED]
    return content


def fill(conn: Conn) -> None:
    """So many workspaces, spread evenly over the runtimes that list models and their models."""
    with conn.transaction():
        conn.execute(
            """
            create temporary table menus on commit drop as
            select r.runtime, m.model, row_number() over () - 1 as place
            from registry.list_runtimes() r, registry.list_models(r.runtime) m
            """
        )
        conn.execute(
            """
            select workspace.create_workspace('w', m.runtime, m.model)
            from generate_series(1, %s) n
            join menus m on m.place = n %% (select count(*) from menus)
            """,
            [WORKSPACES],
        )


def pairs(conn: Conn) -> Pairs:
    """Every workspace's pair."""
    found = conn.execute(
        """
        select w.id, w.runtime, keyring.unseal(k, w.id, 'MODEL', s.sealed, s.key_id)
        from keyring.active_key() k, workspace.workspaces w
        left join workspace.secrets s on s.workspace_id = w.id and s.key = 'MODEL'
        """
    )
    return {ws: (runtime, model) for ws, runtime, model in found}


def settled(batches: Iterable[list[MoveEntry]]) -> dict[UUID, MoveEntry]:
    return {entry.workspace_id: entry for batch in batches for entry in batch}


def after(entries: dict[UUID, MoveEntry]) -> Pairs:
    """What the entries say."""
    assert {entry.outcome for entry in entries.values()} == {"changed"}
    return {ws: (entry.runtime or "", entry.model) for ws, entry in entries.items()}


@pytest.mark.timeout(300)
def test_a_fleet_outlives_a_runtime_and_an_arm(database: Database) -> None:
    with database.connect(autocommit=True) as conn:
        first = one(conn, "select revision from registry.state")
        fill(conn)
        begun = now = pairs(conn)
        assert len(begun) == WORKSPACES
        assert len({runtime for runtime, _ in begun.values()}) == 5
        writes = WORKSPACES

        def holds(expected: Pairs, stranded: Iterable[UUID] = ()) -> Pairs:
            """All pairs are these, all others than the stranded are routable, all is recorded."""
            assert pairs(conn) == expected
            assert {orphan.workspace_id for orphan in orphans(conn)} == set(stranded)
            assert unrecorded(conn) == []
            assert one(conn, "select count(*) from workspace.changes") == writes
            return expected

        # Refused: google-adk is in use, and the arm's models are.
        with nothing_written(conn):
            with pytest.raises(RuntimeInUse) as in_use:
                pyapi.load_registry(conn, retired())
            with pytest.raises(RegistryOrphans) as refusal:
                pyapi.load_registry(conn, trimmed())
            dry = pyapi.load_registry(conn, trimmed(), on_orphan="keep", dry_run=True)
        on_retired = {ws for ws, (runtime, _) in begun.items() if runtime == RETIRED}
        assert in_use.value.runtimes == [{"runtime": RETIRED, "workspaces": len(on_retired)}]
        stranded = {UUID(orphan["workspace_id"]) for orphan in dry.orphans}
        assert refusal.value.orphans_total == len(stranded) > 0
        assert {begun[ws][0] for ws in stranded} == {TRIMMED}
        holds(now)

        # Kept, and listed.
        assert pyapi.load_registry(conn, trimmed(), on_orphan="keep").orphans == dry.orphans
        holds(now, stranded)
        listed = {orphan.workspace_id: orphan for orphan in orphans(conn)}
        assert {(str(ws), each.reset_model) for ws, each in listed.items()} == {
            (orphan["workspace_id"], orphan["reset_model"]) for orphan in dry.orphans
        }

        # Reset.
        preview = settled(reset_all_orphans(conn, dry_run=True))
        reset = settled(reset_all_orphans(conn))
        assert reset == preview
        assert after(reset) == {ws: (TRIMMED, each.reset_model) for ws, each in listed.items()}
        writes += len(stranded)
        now = holds(now | after(reset))

        # Moved; then nothing holds the runtime any more.
        preview = settled(move_all(conn, RETIRED, HEIR, dry_run=True))
        moved = settled(move_all(conn, RETIRED, HEIR, request_id="retire"))
        assert moved == preview
        assert moved.keys() == on_retired
        assert {runtime for runtime, _ in after(moved).values()} == {HEIR}
        writes += len(moved)
        now = holds(now | after(moved))
        assert pyapi.load_registry(conn, retired()).loaded
        holds(now)

        # And back: the registry, and who was moved gets what it had.
        assert pyapi.restore_registry(conn, first).orphans == []
        holds(now)
        among = sorted(moved)
        back = settled(move_all(conn, HEIR, RETIRED, restore=True, among=among))
        assert after(back) == {ws: begun[ws] for ws in moved}
        writes += len(back)
        now = holds(now | after(back))
        assert {ws for ws, pair in now.items() if pair != begun[ws]} <= stranded
