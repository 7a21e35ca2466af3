"""All workspaces at once. See `pyapi.workspace` for how a call behaves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from .calls import Call, Row, Statement, columns, each, one, scalar, sync
from .errors import InvalidArgument
from .workspace import HistoryEntry


@dataclass(frozen=True, slots=True)
class WorkspaceEntry:
    """A workspace in a list: what `Workspace` has, but for the model."""

    workspace_id: UUID
    name: str
    runtime: str
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class RegistryLoad:
    """What loading a manifest did to the registry, or would do (`dry_run`)."""

    revision: int
    """The registry's revision now."""
    loaded: bool
    """False: it was a dry run, or this is the manifest that is loaded already."""
    added: list[dict[str, Any]]
    """What the manifest has and the registry had not: objects with `kind` (`provider`, `runtime`,
    `arm`, `model` or `equivalent`), what identifies it and, in `after`, what is said of it."""
    removed: list[dict[str, Any]]
    """What the registry had and the manifest has not; what was said of it is in `before`."""
    changed: list[dict[str, Any]]
    """What is in both, with the part that differs in `before` and `after`. The kind `order` has a
    list's members (`of`) that have changed places."""
    orphans: list[dict[str, Any]]
    """Workspaces whose model is not registered any more: objects with `workspace_id`, `runtime`,
    `model`, and what a reset would give them, `reset_model` and `reset_source`."""


@dataclass(frozen=True, slots=True)
class Revision:
    """A registry that was loaded."""

    revision: int
    loaded_at: datetime
    loaded_by: str
    """The setting `runtime_registry.actor` of the session, else its user."""
    restored_from: int | None
    """The older revision it is a copy of, if `restore_registry` loaded it."""
    is_current: bool
    providers: int
    runtimes: int
    models: int
    """How many it has; a model counts once for each runtime."""


@dataclass(frozen=True, slots=True)
class Deprecation:
    """A workspace whose model is deprecated."""

    workspace_id: UUID
    runtime: str
    model: str
    deprecated_at: datetime
    """From when on the model should not be used; it may lie ahead."""
    sunset_at: datetime | None
    """From when on it is not going to work, if that is known."""
    successor: str | None
    """The model to use instead, if one is named."""


OnOrphan = Literal["refuse", "keep", "reset"]


def _registry_load(rows: list[Row]) -> RegistryLoad:
    revision, loaded, *lists = rows[0]
    return RegistryLoad(revision, loaded, *map(json.loads, lists))


# JSON travels as text, so that the connection's own JSON adapters do not matter.
_LOAD = "revision, loaded, added::text, removed::text, changed::text, orphans::text"

_LOAD_REGISTRY = Statement(
    f"""
    select {_LOAD} from fleet.load_registry(
        manifest => %(manifest)s::jsonb, on_orphan => %(on_orphan)s::text,
        dry_run => %(dry_run)s::boolean)
    """,
    _registry_load,
)


def load_registry_call(
    manifest: Mapping[str, Any],
    *,
    on_orphan: OnOrphan = "refuse",
    dry_run: bool = False,
) -> Call[RegistryLoad]:
    """Replace the registry by a manifest, as a new revision.

    `pyapi.schema.default_manifest()` is the one that comes with the package. With
    `on_orphan="refuse"` nothing is loaded if a workspace would be left with a model that is not
    registered for its runtime; with `"keep"` it is left so; with `"reset"` it gets an equivalent or
    the default at once, and if there is none, nothing is loaded. `dry_run` checks everything and
    loads nothing.

    Raises: InvalidArgument, IsolationUnsupported (the transaction is not READ COMMITTED),
    RegistryInvalid, RegistryOrphans, RuntimeInUse, EncryptionKeyMissing.
    """
    try:
        text = json.dumps(manifest, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgument.make("manifest", "cannot be written as JSON") from error
    return Call(_LOAD_REGISTRY, {"manifest": text, "on_orphan": on_orphan, "dry_run": dry_run})


_RESTORE_REGISTRY = Statement(
    f"""
    select {_LOAD} from fleet.restore_registry(
        revision => %(revision)s::bigint, on_orphan => %(on_orphan)s::text,
        dry_run => %(dry_run)s::boolean)
    """,
    _registry_load,
)


def restore_registry_call(
    revision: int, *, on_orphan: OnOrphan = "refuse", dry_run: bool = False
) -> Call[RegistryLoad]:
    """Load an earlier revision's manifest again, as a new revision.

    `on_orphan` and `dry_run` as in `load_registry`.

    Raises: RevisionNotFound, and what `load_registry` does.
    """
    params = {"revision": revision, "on_orphan": on_orphan, "dry_run": dry_run}
    return Call(_RESTORE_REGISTRY, params)


_REVISIONS = Statement(
    f"select {columns(Revision)} from fleet.revisions()", each(Revision), reads_only=True
)


def revisions_call() -> Call[list[Revision]]:
    """List every registry that was loaded, the newest first."""
    return Call(_REVISIONS, {})


def _manifest(rows: list[Row]) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(rows[0][0])
    return manifest


_REVISION_MANIFEST = Statement(
    "select fleet.revision_manifest(revision => %(revision)s::bigint)::text",
    _manifest,
    reads_only=True,
)


def revision_manifest_call(revision: int | None = None) -> Call[dict[str, Any]]:
    """Return a revision's manifest, without a number the current one's.

    Raises: RevisionNotFound, also where nothing was ever loaded.
    """
    return Call(_REVISION_MANIFEST, {"revision": revision})


_DEPRECATIONS = Statement(
    f"select {columns(Deprecation)} from fleet.deprecations()", each(Deprecation), reads_only=True
)


def deprecations_call() -> Call[list[Deprecation]]:
    """List the workspaces whose model is deprecated, those first whose model ends first.

    Raises: EncryptionKeyMissing.
    """
    return Call(_DEPRECATIONS, {})


@dataclass(frozen=True, slots=True)
class Orphan:
    """A workspace whose model is not registered for its runtime, or cannot be read."""

    workspace_id: UUID
    runtime: str
    model: str | None
    """None: it cannot be read."""
    problem: str
    """`not registered` or `unreadable`."""
    reset_model: str | None
    """What `reset_orphans` would give it; None: nothing, it would refuse."""
    reset_source: str | None
    """`equivalent` or `default`."""


_ORPHANS = Statement(
    f"select {columns(Orphan)} from fleet.orphans(runtime => %(runtime)s::text)",
    each(Orphan),
    reads_only=True,
)


def orphans_call(runtime: str | None = None) -> Call[list[Orphan]]:
    """List the workspaces whose model is not registered for their runtime, or cannot be read.

    With `runtime`, those on this one.

    Raises: InvalidArgument, RuntimeUnsupported, RegistryUnavailable, EncryptionKeyMissing.
    """
    return Call(_ORPHANS, {"runtime": runtime})


@dataclass(frozen=True, slots=True)
class MoveEntry:
    """What `move` or `reset_orphans` did to one workspace, or would do (`dry_run`)."""

    workspace_id: UUID
    outcome: str
    """`changed`; `unchanged`: there was nothing to do; `recorded`: this `request_id` had done it
    before, and this is the answer of then; `refused`: see `code`, nothing was changed; `skipped`:
    somebody holds it; `gone`: it is deleted, or on another runtime."""
    code: str | None
    """Why it was refused: the code of the error that a single call would raise."""
    version: int | None
    previous_runtime: str | None
    runtime: str | None
    previous_model: str | None
    model: str | None
    model_source: str | None
    """Why it is this model, as in `Change`."""


_MOVE = Statement(
    f"""
    select {columns(MoveEntry)} from fleet.move(
        from_runtime => %(from_runtime)s::text, to_runtime => %(to_runtime)s::text,
        restore => %(restore)s::boolean, request_id => %(request_id)s::text,
        after => %(after)s::uuid, batch => %(batch)s::integer, among => %(among)s::uuid[],
        dry_run => %(dry_run)s::boolean)
    """,
    each(MoveEntry),
)


def move_call(
    from_runtime: str,
    to_runtime: str,
    *,
    restore: bool = False,
    request_id: str | None = None,
    after: UUID | str | None = None,
    batch: int = 1000,
    among: Sequence[UUID | str] | None = None,
    dry_run: bool = False,
) -> Call[list[MoveEntry]]:
    """Switch workspaces from one runtime to another, each as `change_runtime` would: one batch.

    It goes through the workspaces in the order of their ids, beginning behind `after`, and returns
    what became of each; fewer than `batch`: these were the last. One that is refused, or that
    somebody holds (it is skipped, not waited for), stops none of the others. `among`: these
    workspaces alone, an entry for each. `restore` and `request_id` as in `change_runtime`.
    `dry_run` answers the same and changes nothing. `move_all` does all batches.

    Raises: InvalidArgument, RuntimeUnsupported, RegistryUnavailable, EncryptionKeyMissing,
    IsolationUnsupported (the transaction is not READ COMMITTED).
    """
    params = {
        "from_runtime": from_runtime,
        "to_runtime": to_runtime,
        "restore": restore,
        "request_id": request_id,
        "after": after,
        "batch": batch,
        "among": _uuids(among),
        "dry_run": dry_run,
    }
    return Call(_MOVE, params)


_RESET_ORPHANS = Statement(
    f"""
    select {columns(MoveEntry)} from fleet.reset_orphans(
        runtime => %(runtime)s::text, request_id => %(request_id)s::text,
        after => %(after)s::uuid, batch => %(batch)s::integer, among => %(among)s::uuid[],
        dry_run => %(dry_run)s::boolean)
    """,
    each(MoveEntry),
)


def reset_orphans_call(
    runtime: str | None = None,
    *,
    request_id: str | None = None,
    after: UUID | str | None = None,
    batch: int = 1000,
    among: Sequence[UUID | str] | None = None,
    dry_run: bool = False,
) -> Call[list[MoveEntry]]:
    """Give orphaned workspaces an equivalent of their model or their runtime's default: one batch.

    With `runtime`, those on this one. The rest is as in `move`; `reset_all_orphans` does all
    batches.

    Raises what `move` raises.
    """
    params = {
        "runtime": runtime,
        "request_id": request_id,
        "after": after,
        "batch": batch,
        "among": _uuids(among),
        "dry_run": dry_run,
    }
    return Call(_RESET_ORPHANS, params)


def _uuids(ids: Sequence[UUID | str] | None) -> list[str] | None:
    # As text, which a mixed list can be sent as.
    return None if ids is None else [str(ws) for ws in ids]


@dataclass(frozen=True, slots=True)
class FeedEntry:
    """One committed change in the feed; the fields it shares with `HistoryEntry` mean the same."""

    cursor: str
    """For `changes_after` and `follow_changes`: to go on behind this change."""
    workspace_id: UUID
    version: int
    action: str
    changed: bool
    previous_runtime: str | None
    runtime: str | None
    previous_model: str | None
    model: str | None
    model_source: str
    provider: str | None
    billed_to: str | None
    actor: str
    request_id: str | None
    changed_at: datetime
    secret: str | None
    needs_restart: bool
    """An agent that ran before does not have this runtime and model yet."""
    name: str | None


_CHANGES_AFTER = Statement(
    f"""
    select {columns(FeedEntry)} from fleet.changes_after(
        cursor => %(cursor)s::text, batch => %(batch)s::integer)
    """,
    each(FeedEntry),
    reads_only=True,
)


def changes_after_call(cursor: str | None = None, *, batch: int = 1000) -> Call[list[FeedEntry]]:
    """List the committed changes of all workspaces behind a cursor; none if there are no more yet.

    From cursor to cursor each change comes exactly once, a workspace's in the order of their
    versions. Without a cursor it begins with the oldest change that was not pruned. See
    `follow_changes`, which does this for ever.

    Raises: EncryptionKeyMissing; InvalidArgument, also if the cursor is older than changes that
    were pruned or ahead of this database: then take `current_cursor` and read the workspaces anew.
    """
    return Call(_CHANGES_AFTER, {"cursor": cursor, "batch": batch})


_CURRENT_CURSOR = Statement("select fleet.current_cursor()", scalar, reads_only=True)


def current_cursor_call() -> Call[str]:
    """Return the cursor of now, behind which every change comes that is committed from now on.

    To take over the state of all workspaces and then keep it up to date: first get this, then read
    them, then follow.
    """
    return Call(_CURRENT_CURSOR, {})


@dataclass(frozen=True, slots=True)
class Pruning:
    """What one batch of `prune_changes` did."""

    pruned: int
    """How many changes it took away."""
    cursor: str | None
    """Where the next batch begins."""
    finished: bool
    """Nothing that is old enough is left behind it."""


_PRUNE_CHANGES = Statement(
    f"""
    select {columns(Pruning)} from fleet.prune_changes(
        before => %(before)s::timestamptz, batch => %(batch)s::integer,
        cursor => %(cursor)s::text)
    """,
    one(Pruning),
)


def prune_changes_call(
    before: datetime, *, batch: int = 1000, cursor: str | None = None
) -> Call[Pruning]:
    """Take changes that were made before a time out of the history and the feed, one batch.

    Repeat it, each time in a transaction of its own, with the cursor it returned until it says
    finished. Of each workspace stay the first change, the last, and the last with a model on each
    runtime; answers to a `request_id` stay for 7 days.

    Raises: InvalidArgument.
    """
    return Call(_PRUNE_CHANGES, {"before": before, "batch": batch, "cursor": cursor})


_LIST_WORKSPACES = Statement(
    f"""
    select {columns(WorkspaceEntry)} from fleet.list_workspaces(
        after => %(after)s::uuid, max_entries => %(max_entries)s::integer)
    """,
    each(WorkspaceEntry),
    reads_only=True,
)


def list_workspaces_call(
    *, after: UUID | str | None = None, max_entries: int = 100
) -> Call[list[WorkspaceEntry]]:
    """List the workspaces by id, a page at a time; `after` is the last id of the page before.

    Raises: InvalidArgument (`max_entries` is not between 1 and 1000).
    """
    return Call(_LIST_WORKSPACES, {"after": after, "max_entries": max_entries})


@dataclass(frozen=True, slots=True)
class OverviewEntry:
    """How many workspaces have this runtime, and a model from this source."""

    runtime: str
    model_source: str
    """Where their model came from, as in `Change`; `none`: they have none; `kept`: longer ago than
    the history goes back."""
    workspaces: int


_OVERVIEW = Statement(
    f"select {columns(OverviewEntry)} from fleet.overview()", each(OverviewEntry), reads_only=True
)


def overview_call() -> Call[list[OverviewEntry]]:
    """Count the workspaces by runtime and by where their model came from.

    It looks at every workspace: that takes seconds where there are millions.
    """
    return Call(_OVERVIEW, {})


_RECENT_CHANGES = Statement(
    f"""
    select {columns(HistoryEntry)} from fleet.recent_changes(
        max_entries => %(max_entries)s::integer)
    """,
    each(HistoryEntry),
    reads_only=True,
)


def recent_changes_call(*, max_entries: int = 20) -> Call[list[HistoryEntry]]:
    """List the newest changes of all workspaces, the latest first.

    For looking at; `changes_after` is for following them.

    Raises: EncryptionKeyMissing, InvalidArgument (`max_entries` is not between 1 and 1000).
    """
    return Call(_RECENT_CHANGES, {"max_entries": max_entries})


list_workspaces = sync(list_workspaces_call)
overview = sync(overview_call)
recent_changes = sync(recent_changes_call)
load_registry = sync(load_registry_call)
restore_registry = sync(restore_registry_call)
revisions = sync(revisions_call)
revision_manifest = sync(revision_manifest_call)
deprecations = sync(deprecations_call)
orphans = sync(orphans_call)
move = sync(move_call)
reset_orphans = sync(reset_orphans_call)
changes_after = sync(changes_after_call)
current_cursor = sync(current_cursor_call)
prune_changes = sync(prune_changes_call)
