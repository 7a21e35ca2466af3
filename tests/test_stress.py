"""Four sessions of random calls on few workspaces while a fifth keeps replacing the registry.

RUNTIME_REGISTRY_STRESS_SECONDS says for how long (5 if unset).
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import partial
from threading import Semaphore
from typing import Any
from uuid import UUID

import pytest

import pyapi
from databases import Database, in_thread
from pyapi import Change, RegistryLoad, Workspace
from sessions import LEVELS, OPTIONS, SECONDS, Outcome, check_history, commit, settle
from support import Conn, Json, manifest, one, provider, runtime

DURATION = float(os.environ.get("RUNTIME_REGISTRY_STRESS_SECONDS", "5"))
CALLERS = 4
CALLS_A_LOAD = 10
MODELS = [f"model-{number}" for number in range(6)]
RUNTIMES = ["alpha", "beta", "gamma", "delta"]
CALLS = ("change", "choose", "clear", "replace", "both", "read", "preview")
REFUSALS = {
    "WORKSPACE_NOT_FOUND",
    "VERSION_CONFLICT",
    "REQUEST_ID_REUSED",
    "RUNTIME_UNSUPPORTED",
    "MODEL_NOT_REGISTERED",
    "NO_DEFAULT_MODEL",
}
LOAD_REFUSALS = {"REGISTRY_ORPHANS", "RUNTIME_IN_USE"}


def random_registry(dice: random.Random) -> Json:
    """A registry that has most models, arms and runtimes, but seldom all of them."""
    listed = [
        runtime(
            name,
            ("house", [model for model in MODELS[number:][:3] if dice.random() < 0.9]),
            *([("claims", [f"{name}-twin"])] if dice.random() < 0.8 else []),
        )
        for number, name in enumerate(RUNTIMES)
        if name == "alpha" or dice.random() < 0.9
    ]
    listed.append(runtime("nothing", ("bare", [])))
    twins = [f"{made['name']}-twin" for made in listed if len(made["arms"]) > 1]
    providers = [
        provider("house", billed_to="platform"),
        provider("claims", model_prefixes=["claimed/"]),
        provider("bare", model_prefixes=["bare/"]),
    ]
    return manifest(providers, listed, equivalents=[twins] if twins else [])


def is_routable(registry: Json, workspace: Workspace) -> bool:
    """The rule of resolve, without the database."""
    prefixes = {
        made["name"]: tuple(made.get("model_prefixes", ())) for made in registry["providers"]
    }
    return workspace.model is None or any(
        workspace.model in arm["models"] or workspace.model.startswith(prefixes[arm["provider"]])
        for made in registry["runtimes"]
        if made["name"] == workspace.runtime
        for arm in made["arms"]
    )


@dataclass(slots=True)
class Work:
    """What one session did."""

    counts: Counter[str] = field(default_factory=Counter)
    answers: list[Change] = field(default_factory=list)

    def count(self, kind: str, outcome: Outcome[Any], refusals: set[str]) -> None:
        if outcome.error is not None and outcome.code not in refusals:
            raise outcome.error
        self.counts[f"{kind} {'refused' if outcome.error else 'done'}"] += 1
        self.counts["serialization failures"] += outcome.tries - 1


def call(
    database: Database,
    dice: random.Random,
    workspaces: list[UUID],
    called: Semaphore,
    until: float,
) -> Work:
    """Call whatever comes up, at any isolation level."""
    work, last = Work(), dict[UUID, int]()
    models = [*MODELS, *(f"{name}-twin" for name in RUNTIMES * 2), "claimed/model", "bare/model"]

    def change(conn: Conn, ws: UUID) -> list[Change]:
        options: dict[str, Any] = {}
        if dice.random() < 0.2:
            options["model"] = dice.choice(models)
        if dice.random() < 0.2:
            options["expected_version"] = last.get(ws, 1)
        if dice.random() < 0.2:
            options["request_id"] = dice.choice("abcde")
        target = dice.choice([*RUNTIMES, "nothing"])
        restore = dice.random() < 0.5
        return [pyapi.change_runtime(conn, ws, target, restore=restore, **options)]

    def choose(conn: Conn, ws: UUID) -> list[Change]:
        return [pyapi.set_model(conn, ws, dice.choice(models))]

    def clear(conn: Conn, ws: UUID) -> list[Change]:
        return [pyapi.clear_model(conn, ws)]

    def replace(conn: Conn, ws: UUID) -> list[Change]:
        made = pyapi.create_workspace(conn, "new", "alpha", model=dice.choice(models))
        return [pyapi.delete_workspace(conn, ws), made]

    def both(conn: Conn, ws: UUID) -> list[Change]:
        pair = sorted({ws, dice.choice(workspaces)})  # by id, or the two sessions could deadlock
        return [answer for ws in pair for answer in dice.choice([change, choose])(conn, ws)]

    def read(conn: Conn, ws: UUID) -> list[Change]:
        assert pyapi.get_workspace(conn, ws).model_registered is not False
        return []

    def preview(conn: Conn, ws: UUID) -> list[Change]:
        pyapi.preview_runtime_change(conn, ws, dice.choice(RUNTIMES))
        return []

    calls = [change] * 5 + [choose] * 3 + [clear, replace, both, both, read, preview]
    with database.connect(options=OPTIONS) as conn:
        while time.monotonic() < until:
            slot = dice.randrange(len(workspaces))
            conn.isolation_level = dice.choice([*LEVELS.values(), None])
            action = dice.choice(calls)
            outcome = settle(conn, partial(action, ws=workspaces[slot]))
            work.count(action.__name__, outcome, REFUSALS)
            called.release()
            for answer in outcome.answer or []:
                work.answers.append(answer)
                work.counts[answer.model_source] += 1
                last[answer.workspace_id] = answer.version
                if answer.previous_runtime is None:
                    workspaces[slot] = answer.workspace_id
        called.release(CALLS_A_LOAD)
        commit(conn, lambda conn: conn.execute("select pg_stat_force_next_flush()"))
    return work


def load(database: Database, dice: random.Random, called: Semaphore, until: float) -> Work:
    """Load one registry after the other, each after so many calls."""
    work = Work()

    def load_any(conn: Conn) -> RegistryLoad:
        return pyapi.load_registry(conn, random_registry(dice))

    with database.connect(options=OPTIONS) as conn:
        while time.monotonic() < until:
            for _ in range(CALLS_A_LOAD):
                assert called.acquire(timeout=SECONDS)
            work.count("load", settle(conn, load_any), LOAD_REFUSALS)
        commit(conn, lambda conn: conn.execute("select pg_stat_force_next_flush()"))
    return work


@pytest.mark.timeout(DURATION + 90)
def test_random_calls_and_loads_leave_every_pair_routable_and_every_write_recorded(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    with database.connect(autocommit=True) as conn:
        pyapi.load_registry(conn, random_registry(random.Random(0)))
        made = [pyapi.create_workspace(conn, "stressed", "alpha") for _ in range(5)]
        workspaces = [answer.workspace_id for answer in made]
        called, until = Semaphore(), time.monotonic() + DURATION
        at_work = [
            in_thread(call, database, random.Random(number), workspaces, called, until)
            for number in range(CALLERS)
        ]
        at_work.append(in_thread(load, database, random.Random(CALLERS), called, until))
        done = [work.result(DURATION + SECONDS) for work in at_work]

        counts = sum((work.counts for work in done), Counter[str]())
        with capsys.disabled():
            print("\n" + ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items())))
        expected = {f"{name} done" for name in CALLS} | {"load done", "load refused"}
        expected |= {"kept", "default", "equivalent", "restored", "requested", "none"}
        expected |= {f"{name} refused" for name in ("change", "choose", "replace", "both")}
        assert expected - set(+counts) == set(), counts

        answers = defaultdict[UUID, list[Change]](list)
        for answer in [*made, *(answer for work in done for answer in work.answers)]:
            answers[answer.workspace_id].append(answer)
        for ws, told in answers.items():
            check_history(conn, ws, told)
        assert one(conn, "select count(distinct workspace_id) from workspace.changes") == len(
            answers
        )

        revisions = conn.execute("select revision, manifest from registry.revisions order by 1")
        numbers, registries = zip(*revisions.fetchall(), strict=True)
        assert list(numbers) == list(range(1, len(numbers) + 1))
        ids = conn.execute("select id from workspace.workspaces").fetchall()
        assert len(ids) == len(workspaces)
        for (ws,) in ids:
            assert is_routable(registries[-1], pyapi.get_workspace(conn, ws))
        deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
        assert one(conn, deadlocks) == 0
