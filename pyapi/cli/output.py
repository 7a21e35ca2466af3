"""How answers and refusals are printed: tables for people, one JSON document for scripts."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table
from rich.text import Text

from ..errors import (
    ModelNotRegistered,
    NoDefaultModel,
    RegistryError,
    RegistryInvalid,
    RegistryOrphans,
    RuntimeInUse,
    RuntimeUnsupported,
)
from ..fleet import MoveEntry, OnOrphan, RegistryLoad
from ..workspace import Change, Workspace
from .doctor import Check

_KINDS = ["provider", "runtime", "arm", "model", "equivalent", "order"]  # as a load shows them
_SHORT = 10  # entries of a list that a refusal shows

# Wide enough that a pipe never gets a wrapped or cut value; a terminal's own width is used there.
_PIPE_WIDTH = 10_000


def print_json(document: object, to: TextIO | None = None, indent: int | None = 2) -> None:
    """Print one JSON document and a newline to `to`, by default standard output.

    Dataclasses become objects whose keys are the SQL fields; uuids and times become text. Without
    an `indent` it is all on one line.
    """
    json.dump(document, to or sys.stdout, default=_as_json, indent=indent)
    print(file=to or sys.stdout)


def _as_json(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return as_dict(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)


def as_dict(entry: Any) -> dict[str, object]:
    """Return a dataclass's fields by name; their values as they are."""
    return {field.name: getattr(entry, field.name) for field in dataclasses.fields(entry)}


def console(stderr: bool = False) -> Console:
    """Return a console on the present standard output or error.

    It prints no colour where rich sees that none is wanted: no terminal, or `NO_COLOR`.
    """
    stream = sys.stderr if stderr else sys.stdout
    return Console(
        file=stream,
        width=None if stream.isatty() else _PIPE_WIDTH,
        markup=False,
        highlight=False,
        soft_wrap=False,
    )


def cell(value: object, style: str = "") -> Text:
    """Return a value as the text of one table cell.

    Names and models come from other people: what a terminal would obey is shown escaped instead.
    """
    match value:
        case None:
            return Text("-", style="dim")
        case bool():
            text = "yes" if value else "no"
        case datetime():
            text = value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
        case list() | tuple():
            text = ", ".join(map(str, value)) or "-"
        case _:
            text = str(value)
    return Text(printable(text), style=style)


def printable(text: str) -> str:
    """Return `text` with every character that is not printable written as its escape."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under the column titles; values that do not fit a terminal are folded."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in columns:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(value if isinstance(value, Text) else cell(value) for value in row))
    console().print(table)


def print_fields(fields: Mapping[str, object]) -> None:
    """Print one thing, a line for each of its fields."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in fields.items():
        grid.add_row(name, value if isinstance(value, Text) else cell(value))
    console().print(grid)


def print_change(change: Change) -> None:
    """Print what a call did, or would do, to a workspace."""
    model = _step(change.previous_model, change.model)
    if change.model_was_reset:
        model += f" (reset: {change.model_source})"
    elif change.model_source == "kept":
        model += " (kept)"
    billed = change.billed_to and change.billed_to + " (changed)" * change.billing_changed
    print_fields(
        {
            "workspace": change.workspace_id,
            "version": f"{change.version}{'' if change.changed else ' (nothing changed)'}",
            "runtime": _step(change.previous_runtime, change.runtime),
            "model": model,
            "provider": change.provider,
            "billed to": billed,
            "needs restart": change.needs_restart,
            **_deprecation(change),
        }
    )


def _deprecation(of: Change | Workspace) -> dict[str, object]:
    """The line that a deprecated model gets, and no other."""
    if not of.model_deprecated and of.model_sunset_at is None:
        return {}
    words = ["deprecated"] if of.model_deprecated else []
    if of.model_sunset_at:
        words.append(f"ends {cell(of.model_sunset_at)} UTC")
    return {"lifetime": cell(", ".join(words), style="yellow")}


def _step(previous: str | None, now: str | None) -> str:
    if previous is None or previous == now:
        return now or "-"
    return f"{previous} -> {now or '-'}"


def print_state(state: Workspace) -> None:
    """Print a workspace as it is."""
    model: Text | str | None = state.model
    if state.model_registered is False:
        model = cell(f"{state.model} (not registered for the runtime)", style="red")
    print_fields(
        {
            "workspace": state.workspace_id,
            "name": state.name,
            "version": state.version,
            "runtime": state.runtime,
            "model": model,
            "provider": state.provider,
            "billed to": state.billed_to,
            "created (UTC)": state.created_at,
            "updated (UTC)": state.updated_at,
            **_deprecation(state),
        }
    )


def print_load(load: RegistryLoad, on_orphan: OnOrphan, dry_run: bool) -> None:
    """Print what loading a manifest did, or would do."""
    out = console()
    entries = [("+", load.added), ("-", load.removed), ("~", load.changed)]
    if not load.loaded and not any(group for _, group in entries):
        out.print(f"Revision {load.revision} stays: the manifest changes nothing.")
        return
    counts = f"{len(load.added)} added, {len(load.removed)} removed, {len(load.changed)} changed"
    if not dry_run:
        out.print(f"Revision {load.revision} is loaded: {counts}.")
        if load.orphans and on_orphan == "reset":
            out.print(
                f"Given another model, theirs is not registered any more: {len(load.orphans)}."
            )
        elif load.orphans:
            out.print(f"Left with a model that is not registered any more: {len(load.orphans)}.")
        return
    for sign, group in entries:
        for entry in sorted(group, key=_place):
            out.print(Text(printable(f"{sign} {_difference(entry)}")), soft_wrap=True)
    for orphan in load.orphans[:_SHORT]:
        out.print(Text(printable(f"! {_orphan(orphan)}")), soft_wrap=True)
    if (more := len(load.orphans) - _SHORT) > 0:
        out.print(f"! and {more} more")
    out.print(f"Nothing is loaded, this is a dry run: {counts}, {len(load.orphans)} orphaned.")


def _place(entry: Mapping[str, Any]) -> tuple[int, str, str]:
    return _KINDS.index(entry["kind"]), entry.get("runtime", ""), entry.get("provider", "")


def _difference(entry: Mapping[str, Any]) -> str:
    """One entry of a load's difference in a line: what it is about, and what is said of it."""
    about = [f"order of {entry['of']}s" if entry["kind"] == "order" else entry["kind"]]
    about += [entry[name] for name in ("runtime", "provider", "model") if name in entry]
    about += [", ".join(entry.get("models", []))]
    before, after = entry.get("before"), entry.get("after")
    if isinstance(before, list) and isinstance(after, list):
        said = [f"{', '.join(before)} -> {', '.join(after)}"]
    else:
        sides = [side for side in (before, after) if side is not None]
        said = [
            f"{key} {' -> '.join(_said(side.get(key)) for side in sides)}"
            for key in sorted({key for side in sides for key in side})
        ]
    return " ".join(filter(None, about)) + (": " if said else "") + ", ".join(said)


def _said(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _orphan(orphan: Mapping[str, Any]) -> str:
    source = orphan["reset_source"]
    reset = f"{orphan['reset_model']} ({source})" if source else "nothing"
    return (
        f"workspace {orphan['workspace_id']} on {orphan['runtime']} loses {orphan['model']}; "
        f"a reset would give it {reset}"
    )


@contextmanager
def progress(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar on standard error, if that is a terminal; yields what moves it on.

    Where the total is not known (None), it shows that something goes on, and how much is done.
    """
    err = console(stderr=True)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal, transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.advance(task, done)


def print_moves(entries: Sequence[MoveEntry], dry_run: bool) -> None:
    """Print what became of workspaces: how many had which outcome, and who was left behind."""
    counts = Counter((entry.outcome, entry.code or entry.model_source) for entry in entries)
    if counts:
        print_table(
            ["outcome", "why", "workspaces"],
            [[outcome, why, count] for (outcome, why), count in sorted(counts.items(), key=str)],
        )
    out = console()
    left = [entry for entry in entries if entry.outcome in {"refused", "skipped"}]
    for entry in left[:_SHORT]:
        why = entry.code or "somebody holds it"
        out.print(f"! workspace {entry.workspace_id} on {entry.runtime} is left as it is: {why}")
    if (more := len(left) - _SHORT) > 0:
        out.print(f"! and {more} more")
    if dry_run:
        out.print("Nothing is changed, this is a dry run.")
    elif not entries:
        out.print("Nothing to do.")


def print_checks(checks: Iterable[Check]) -> None:
    """Print what doctor found."""
    styles = {"ok": "green", "warning": "yellow", "problem": "bold red"}
    print_table(
        ["check", "", "finding"],
        [[each.check, cell(each.status, styles[each.status]), each.finding] for each in checks],
    )


def print_error(error: RegistryError) -> None:
    """Print a refusal to standard error: the sentence, the facts it comes with, what to do."""
    err = console(stderr=True)
    err.print(Text.assemble(("error: ", "bold red"), printable(error.message)), soft_wrap=True)
    for line in _particulars(error):
        err.print(Text(f"  {printable(line)}"), soft_wrap=True)
    if error.hint:
        err.print(Text.assemble(("hint: ", "bold"), printable(error.hint)), soft_wrap=True)


def _particulars(error: RegistryError) -> Iterator[str]:
    """The lists in a refusal's DETAIL, one entry a line, cut where the rest would only be noise."""
    match error:
        case ModelNotRegistered() | NoDefaultModel() if error.valid_models:
            yield f"valid models: {', '.join(error.valid_models[:_SHORT])}"
            if (more := error.valid_models_total - _SHORT) > 0:
                yield f"and {more} more, see: runtime-registry models {error.runtime}"
        case RuntimeUnsupported():
            yield f"valid runtimes: {', '.join(error.valid_runtimes)}"
        case RegistryInvalid():
            yield from (f"{each['path']}: {each['problem']}" for each in error.problems)
            if (more := error.problems_total - len(error.problems)) > 0:
                yield f"and {more} more"
        case RuntimeInUse():
            yield from (
                f"{each['runtime']}: {each['workspaces']} workspaces" for each in error.runtimes
            )
        case RegistryOrphans():
            yield from (
                f"{each['workspace_id']} on {each['runtime']}" for each in error.orphans[:_SHORT]
            )
            if (more := error.orphans_total - _SHORT) > 0:
                yield f"and {more} more"
