"""The story that `runtime-registry demo` tells, about one workspace on the real catalogue.

Every call is printed with what it answered, and every answer is checked: a demo that would show
something else than it says fails.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar
from uuid import UUID

import psycopg

from pyapi import fleet, registry, schema, workspace
from pyapi.errors import ModelNotRegistered, NoDefaultModel, RegistryError

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=RegistryError)

_KIMI = "moonshot/kimi-k2.6"
_GEMINI = "platform:gemini-2.5-pro"
_NAME_ONLY = {"name": "byo-router", "arms": [{"provider": "openrouter"}, {"provider": "groq"}]}


class Surprise(Exception):
    """The database answered something else than the demo says it does."""


class OtherRegistry(Exception):
    """The registry of the database is not the packaged catalogue; nothing was done."""


def run(conn: psycopg.Connection[Any], say: Callable[[str], object] = print) -> UUID:
    """Tell the story on a migrated database whose registry is the packaged catalogue.

    It makes a workspace of its own and leaves it, with its history; the registry stays as it is.

    `conn` is an autocommit connection of the owner or a superuser, because the demo reads a stored
    secret; `say` takes the lines to print. Returns the id of the workspace.

    Raises: OtherRegistry, Surprise, and what the calls raise.
    """
    catalogue = schema.default_manifest()
    difference = fleet.load_registry(conn, catalogue, dry_run=True)
    if difference.added or difference.removed or difference.changed:
        raise OtherRegistry(
            "the registry of this database is not the packaged catalogue, which the demo is about"
        )
    conn.execute("select from workspace.secrets limit 0")  # who may not, learns it now
    story = _Story(conn, say)

    story.chapter("1. A workspace on claude-code", "Its model is one that claude-code can run.")
    made = story.call(workspace.create_workspace, "demo", "claude-code", model=_KIMI)
    story.answer(made, "workspace_id", "runtime", "model", "version")
    _expect(
        made.runtime == "claude-code" and made.model == _KIMI,
        "the workspace has its runtime and model",
    )
    ws = made.workspace_id

    story.chapter(
        "2. The trap: setting the next runtime's model first",
        "An explicit choice is strict: the model must be registered for the runtime that the "
        "workspace has.",
    )
    no_model = story.refused(ModelNotRegistered, workspace.set_model, ws, _GEMINI)
    _expect(
        no_model.valid_models == registry.menu(conn, "claude-code"),
        "the refusal lists claude-code's models",
    )
    _expect(workspace.get_workspace(conn, ws).version == made.version, "a refusal changes nothing")

    story.chapter(
        "3. Switching the runtime takes one call",
        f"google-adk cannot run {_KIMI}: its own default takes the place, in the same transaction.",
    )
    switched = story.call(workspace.change_runtime, ws, "google-adk")
    story.answer(
        switched,
        "model_was_reset",
        "previous_model",
        "model",
        "model_source",
        "needs_restart",
        "version",
    )
    _expect(
        switched.model_was_reset and switched.model == _GEMINI, f"the model was reset to {_GEMINI}"
    )

    story.chapter("4. The same call again changes nothing")
    again = story.call(workspace.change_runtime, ws, "google-adk")
    story.answer(again, "changed", "model_was_reset", "model", "needs_restart", "version")
    _expect(
        not (again.changed or again.model_was_reset or again.needs_restart),
        "nothing was to be done",
    )
    _expect(again.version == switched.version, "nothing was written")

    story.chapter(
        "5. A model that the next runtime has is kept",
        "Back to claude-code, with the model it last had there; then to hermes, which has that "
        "model too: the bytes of the secret stay as they are.",
    )
    restored = story.call(workspace.change_runtime, ws, "claude-code", restore=True)
    story.answer(restored, "model_was_reset", "model", "model_source", "version")
    _expect(
        restored.model == _KIMI and restored.model_source == "restored", "the earlier model is back"
    )
    before = story.sealed_model(ws)
    kept = story.call(workspace.change_runtime, ws, "hermes")
    story.answer(kept, "model_was_reset", "model", "model_source", "version")
    _expect(kept.model == _KIMI and kept.model_source == "kept", "hermes keeps the model")
    _expect(story.sealed_model(ws) == before, "the secret has the same bytes")

    story.chapter(
        "6. Without a default it refuses, and nothing changes",
        "byo-router, with the providers openrouter and groq, lists no models. The catalogue has no "
        "such runtime, so the demo adds it, in a transaction that it rolls back.",
    )
    extended = {**catalogue, "runtimes": [*catalogue["runtimes"], _NAME_ONLY]}
    # Nothing is printed in here: the registry is locked, and whoever reads may be slow.
    with conn.transaction(force_rollback=True):
        loaded = fleet.load_registry(conn, extended)
        no_default = _refusal(
            NoDefaultModel, lambda: workspace.change_runtime(conn, ws, "byo-router")
        )
    _expect(loaded.loaded, "a registry with byo-router is loaded")
    story.line(">>> load_registry(conn, catalogue_with_byo_router)")
    story.line(">>> change_runtime(conn, ws, 'byo-router')")
    story.refusal(no_default)
    state = story.call(workspace.get_workspace, ws)
    story.answer(state, "runtime", "model", "version")
    _expect(
        (state.runtime, state.model, state.version) == ("hermes", _KIMI, kept.version),
        "the workspace is as it was",
    )

    story.chapter("7. The history has every write, and no refusal")
    history = story.call(workspace.history, ws)
    for entry in history:
        story.line(
            f"{entry.version}  {entry.action:<17} {entry.runtime!s:<12} {entry.model!s:<24} "
            f"{entry.model_source}"
        )
    _expect(
        [(entry.runtime, entry.model, entry.model_source) for entry in history]
        == [
            ("claude-code", _KIMI, "requested"),
            ("google-adk", _GEMINI, "default"),
            ("claude-code", _KIMI, "restored"),
            ("hermes", _KIMI, "kept"),
        ],
        "the history has the four writes",
    )
    return ws


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise Surprise(f"the demo expected that {what}, and it is not so")


def _refusal(expected: type[E], call: Callable[[], object]) -> E:
    try:
        call()
    except expected as refusal:
        return refusal
    raise Surprise(f"the demo expected {expected.__name__}, and the call was not refused")


class _Story:
    """Prints chapters, calls and answers in the demo's layout, 80 columns wide."""

    __slots__ = ("_conn", "_say")

    def __init__(self, conn: psycopg.Connection[Any], say: Callable[[str], object]) -> None:
        self._conn = conn
        self._say = say

    def line(self, text: str, hang: int = 0) -> None:
        for piece in textwrap.wrap(
            text,
            width=79,
            initial_indent="   ",
            subsequent_indent="   " + " " * hang,
            break_long_words=False,
            break_on_hyphens=False,
        ):
            self._say(piece)

    def chapter(self, title: str, text: str = "") -> None:
        self._say(f"\n{title}")
        self.line(text)
        self._say("")

    def show(self, name: str, args: Sequence[object], kwargs: Mapping[str, object]) -> None:
        """Print a call as Python has it; the workspace's id is shown as `ws`."""
        shown = ["conn", *("ws" if isinstance(value, UUID) else repr(value) for value in args)]
        shown += [f"{key}={value!r}" for key, value in kwargs.items()]
        self.line(f">>> {name}({', '.join(shown)})", hang=6)

    def call(
        self,
        function: Callable[Concatenate[psycopg.Connection[Any], P], R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        self.show(function.__name__, args, kwargs)
        return function(self._conn, *args, **kwargs)

    def refused(
        self,
        expected: type[E],
        function: Callable[Concatenate[psycopg.Connection[Any], P], object],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> E:
        """Make a call that has to be refused, and return the refusal."""
        self.show(function.__name__, args, kwargs)
        refusal = _refusal(expected, lambda: function(self._conn, *args, **kwargs))
        self.refusal(refusal)
        return refusal

    def answer(self, result: object, *fields: str) -> None:
        for field in fields:
            self.line(f"{field:<16} {getattr(result, field)}")

    def refusal(self, error: RegistryError) -> None:
        self.line(f"refused: {error.code}", hang=3)
        self.line(error.message, hang=3)
        self.line(f"hint: {error.hint}", hang=3)
        if models := error.detail.get("valid_models"):
            self.line(
                f"valid models ({error.detail['valid_models_total']}): {', '.join(models)}", hang=3
            )

    def sealed_model(self, ws: UUID) -> bytes:
        """Print and run the statement that reads the stored bytes of the workspace's model."""
        sql = "select sealed from workspace.secrets"
        where = "where workspace_id = %(ws)s and key = 'MODEL'"
        self.line(f"sql> {sql}")
        self.line(f"     {where.replace('%(ws)s', ':ws')}")
        row = self._conn.execute(f"{sql} {where}", {"ws": ws}).fetchone()
        sealed = bytes(row[0]) if row else b""
        shown = sealed.hex() if len(sealed) <= 24 else f"{sealed[:24].hex()}..."
        self.line(f"{'sealed':<16} {shown} ({len(sealed)} bytes)")
        return sealed
