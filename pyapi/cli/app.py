"""The commands: each names a database, makes one call of the package and prints its answer."""

from __future__ import annotations

import inspect
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Concatenate, NoReturn, ParamSpec, get_args

import psycopg
import typer
from typer.core import TyperGroup

from .. import access, fleet, follow_changes, keyring, registry, schema, workspace
from .. import demo as story
from ..batches import BATCH, move_all, reset_all_orphans
from ..embedded import EmbeddedError
from ..errors import RegistryError, translate
from ..keyring import Kek
from . import database, manifests, output
from . import doctor as checks
from .database import Options
from .exits import Exit

P = ParamSpec("P")


class _Group(TyperGroup):
    """Tells a script in JSON, too, that its command line is wrong."""

    def main(self, args: Sequence[str] | None = None, **extra: Any) -> Any:  # type: ignore[override]
        args = sys.argv[1:] if args is None else list(args)
        if "--json" not in args:
            return super().main(args, **extra)
        try:
            code = super().main(args, **{**extra, "standalone_mode": False})
        except typer.TyperException as error:
            output.print_json({"code": "USAGE", "message": error.format_message()}, sys.stderr)
            code = error.exit_code
        sys.exit(code)


app = typer.Typer(
    cls=_Group,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they show variables, and a conninfo may hold a password
    help="Which models each agent runtime can run, and one call that switches a workspace's "
    "runtime.",
    epilog="Exit codes: " + "; ".join(f"{code:d} {code.meaning}" for code in Exit) + ".",
)
_secret = typer.Typer(no_args_is_help=True, help="The secrets of workspaces besides MODEL.")
_keyring = typer.Typer(no_args_is_help=True, help="The keys that seal the secrets.")
app.add_typer(_secret, name="secret")
app.add_typer(_keyring, name="keyring")

_token = typer.Typer(no_args_is_help=True, help="Tokens for the HTTP service.")
app.add_typer(_token, name="token")

_fleet = typer.Typer(no_args_is_help=True, help="All workspaces at once.")
app.add_typer(_fleet, name="fleet")

_Database = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="DSN",
        help="A connection string, a postgresql:// URL or a database's name. Without it "
        "DATABASE_URL, else libpq's variables (PGHOST, PGSERVICE, PGDATABASE, ...), else the "
        "embedded Postgres.",
    ),
]
_Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document; an error, to standard error.")
]
_KekFile = Annotated[
    Path | None,
    typer.Option(
        "--kek-file",
        metavar="FILE",
        help=f"A file with the key-encryption key; else {keyring.ENVIRONMENT_VARIABLE}.",
    ),
]
_Ws = Annotated[str, typer.Argument(metavar="WORKSPACE", help="The workspace's id.")]
_Runtime = Annotated[str, typer.Argument(metavar="RUNTIME", help="The runtime's name.")]
_OfRuntime = Annotated[
    str | None, typer.Option("--runtime", metavar="RUNTIME", help="On this runtime alone.")
]
_Model = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="MODEL", help="This model; it has to be registered for the runtime."
    ),
]
_Restore = Annotated[
    bool, typer.Option("--restore", help="Prefer the model the workspace last had there.")
]
_Version = Annotated[
    int | None,
    typer.Option(
        "--expected-version", metavar="N", help="Refuse if the workspace has another version."
    ),
]
_Request = Annotated[
    str | None,
    typer.Option(
        "--request-id", metavar="ID", help="Makes it safe to repeat: it takes effect once."
    ),
]
_OnOrphan = Annotated[
    fleet.OnOrphan,
    typer.Option(
        "--on-orphan",
        help="What becomes of workspaces whose model would not be registered any more.",
    ),
]
_DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what it would change, and change nothing.")
]
_LockTimeout = Annotated[
    str,
    typer.Option("--lock-timeout", metavar="TIME", help="How long to wait for a lock."),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(version("runtime-registry"))
        raise typer.Exit


@app.callback()
def _before_the_name(
    context: typer.Context,
    database: _Database = None,
    as_json: _Json = False,
    kek_file: _KekFile = None,
    _show_version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    context.obj = Options(database, as_json, kek_file)


_revisions = typer.Typer(no_args_is_help=True)
app.add_typer(_revisions, name="registry", help="The registries that were loaded.")


def _command(
    group: typer.Typer = app, name: str | None = None, **settings: Any
) -> Callable[[Callable[Concatenate[Options, P], None]], Callable[Concatenate[Options, P], None]]:
    """Make a function a command, with the options of all commands after its own."""

    def register(
        function: Callable[Concatenate[Options, P], None],
    ) -> Callable[Concatenate[Options, P], None]:
        def run(
            context: typer.Context,
            database: str | None,
            as_json: bool,
            kek_file: Path | None,
            **own: Any,
        ) -> None:
            before: Options = context.obj
            options = Options(
                before.database if database is None else database,
                before.as_json or as_json,
                kek_file or before.kek_file,
            )
            with _failures(options):
                function(options, **own)  # type: ignore[call-arg]

        def parameter(name: str, annotation: object, **default: Any) -> inspect.Parameter:
            kind = inspect.Parameter.KEYWORD_ONLY
            return inspect.Parameter(name, kind, annotation=annotation, **default)

        signature = inspect.signature(function, eval_str=True)
        own = list(signature.parameters.values())[1:]
        # typer reads the options of a command off its signature.
        run.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[
                parameter("context", typer.Context),
                *(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own),
                parameter("database", _Database, default=None),
                parameter("as_json", _Json, default=False),
                parameter("kek_file", _KekFile, default=None),
            ]
        )
        run.__annotations__ = {}
        run.__doc__ = function.__doc__
        group.command(name or function.__name__.replace("_", "-"), **settings)(run)
        return function

    return register


@contextmanager
def _failures(options: Options) -> Iterator[None]:
    """Print why a command could not do its work, and leave with the exit code for it."""
    try:
        yield
    except RegistryError as error:
        _fail(options, error, Exit.of(error))
    except psycopg.Error as error:
        failure = translate(error)
        _fail(options, failure, Exit.of(failure))
    except EmbeddedError as error:
        _fail(options, RegistryError(503, "EMBEDDED_UNAVAILABLE", str(error)), Exit.UNAVAILABLE)
    except story.OtherRegistry as error:
        hint = "Give the demo a database of its own, or first run `runtime-registry load`."
        _fail(options, RegistryError(409, "OTHER_REGISTRY", str(error), hint), Exit.CONFLICT)
    except story.Surprise as error:
        _fail(options, RegistryError(500, "UNEXPECTED", str(error)), Exit.UNEXPECTED)


def _fail(options: Options, error: RegistryError, code: Exit) -> NoReturn:
    if options.as_json:
        fields = ("status", "code", "message", "hint", "detail")
        output.print_json({field: getattr(error, field) for field in fields}, sys.stderr)
    else:
        output.print_error(error)
    raise typer.Exit(code)


def _change(options: Options, call: Callable[[psycopg.Connection[Any]], workspace.Change]) -> None:
    with database.connection(options) as conn:
        answer = call(conn)
    if options.as_json:
        output.print_json(answer)
    else:
        output.print_change(answer)


def _print_entries(
    options: Options,
    entries: Sequence[object],
    columns: Mapping[str, Callable[[Any], object]],
) -> None:
    """Print entries with all their fields as JSON, or as a table of `columns`, by their titles."""
    if options.as_json:
        output.print_json(entries)
    else:
        rows = [[value(entry) for value in columns.values()] for entry in entries]
        output.print_table(list(columns), rows)


# What may run


@_command()
def runtimes(options: Options) -> None:
    """List the runtimes."""
    with database.connection(options) as conn:
        entries = registry.list_runtimes(conn)
    columns: dict[str, Callable[[registry.RuntimeEntry], object]] = {
        "runtime": lambda entry: entry.runtime,
        "policy": lambda entry: entry.model_policy,
        "default model": lambda entry: entry.default_model,
        "models": lambda entry: entry.models,
        "providers": lambda entry: entry.providers,
    }
    _print_entries(options, entries, columns)


@_command()
def models(options: Options, runtime: _Runtime) -> None:
    """List the models that are registered for a runtime."""
    with database.connection(options) as conn:
        entries = registry.list_models(conn, runtime)
    columns: dict[str, Callable[[registry.ModelEntry], object]] = {
        "": lambda entry: entry.position,
        "model": lambda entry: entry.model,
        "provider": lambda entry: entry.provider,
        "billed to": lambda entry: entry.billed_to,
        "default": lambda entry: "default" if entry.is_default else "",
    }
    if any(entry.deprecated_at for entry in entries):
        columns |= {
            "deprecated (UTC)": lambda entry: entry.deprecated_at,
            "ends (UTC)": lambda entry: entry.sunset_at,
            "successor": lambda entry: entry.successor,
        }
    _print_entries(options, entries, columns)


@_command()
def load(
    options: Options,
    manifest: Annotated[
        Path | None,
        typer.Argument(
            metavar="MANIFEST",
            help="A YAML or JSON file, - for standard input; else the packaged catalogue.",
            show_default=False,
        ),
    ] = None,
    on_orphan: _OnOrphan = "refuse",
    dry_run: _DryRun = False,
) -> None:
    """Replace the registry by a manifest."""
    try:
        content = schema.default_manifest() if manifest is None else manifests.read(manifest)
    except OSError as error:
        raise typer.BadParameter(f"{manifest}: {error.strerror}", param_hint="MANIFEST") from error
    with database.connection(options, loaded=False) as conn:
        answer = fleet.load_registry(conn, content, on_orphan=on_orphan, dry_run=dry_run)
    _print_load(options, answer, on_orphan, dry_run)


def _print_load(
    options: Options, answer: fleet.RegistryLoad, on_orphan: fleet.OnOrphan, dry_run: bool
) -> None:
    if options.as_json:
        output.print_json(answer)
    else:
        output.print_load(answer, on_orphan, dry_run)


@_command()
def deprecations(options: Options) -> None:
    """List the workspaces whose model is deprecated, those first whose model ends first."""
    with database.connection(options) as conn:
        entries = fleet.deprecations(conn)
    columns: dict[str, Callable[[fleet.Deprecation], object]] = {
        "workspace": lambda entry: entry.workspace_id,
        "runtime": lambda entry: entry.runtime,
        "model": lambda entry: entry.model,
        "deprecated (UTC)": lambda entry: entry.deprecated_at,
        "ends (UTC)": lambda entry: entry.sunset_at,
        "successor": lambda entry: entry.successor,
    }
    _print_entries(options, entries, columns)


# The registries that were loaded


@_command(_revisions)
def revisions(options: Options) -> None:
    """List the revisions, the newest first."""
    with database.connection(options) as conn:
        entries = fleet.revisions(conn)
    columns: dict[str, Callable[[fleet.Revision], object]] = {
        "": lambda entry: "*" if entry.is_current else "",
        "revision": lambda entry: entry.revision,
        "loaded (UTC)": lambda entry: entry.loaded_at,
        "by": lambda entry: entry.loaded_by,
        "restored from": lambda entry: entry.restored_from,
        "providers": lambda entry: entry.providers,
        "runtimes": lambda entry: entry.runtimes,
        "models": lambda entry: entry.models,
    }
    _print_entries(options, entries, columns)


@_command(_revisions)
def restore(
    options: Options,
    revision: Annotated[int, typer.Argument(metavar="REVISION", help="Its number.")],
    on_orphan: _OnOrphan = "refuse",
    dry_run: _DryRun = False,
) -> None:
    """Load an earlier revision again, as a new one."""
    with database.connection(options) as conn:
        answer = fleet.restore_registry(conn, revision, on_orphan=on_orphan, dry_run=dry_run)
    _print_load(options, answer, on_orphan, dry_run)


@_command(_revisions)
def export(
    options: Options,
    revision: Annotated[
        int | None,
        typer.Argument(
            metavar="REVISION", help="Its number; else the current one.", show_default=False
        ),
    ] = None,
) -> None:
    """Print a revision's manifest, in JSON, as it can be loaded again."""
    with database.connection(options) as conn:
        output.print_json(fleet.revision_manifest(conn, revision))


# Workspaces


@_command()
def create(
    options: Options,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    runtime: Annotated[str, typer.Option("--runtime", metavar="RUNTIME", help="Its runtime.")],
    model: _Model = None,
    id: Annotated[
        str | None,
        typer.Option("--id", metavar="UUID", help="Its id; else the database makes one."),
    ] = None,
) -> None:
    """Create a workspace."""
    _change(
        options,
        lambda conn: workspace.create_workspace(conn, name, runtime, model=model, id=id),
    )


@_command()
def change(
    options: Options,
    ws: _Ws,
    runtime: _Runtime,
    model: _Model = None,
    restore: _Restore = False,
    expected_version: _Version = None,
    request_id: _Request = None,
) -> None:
    """Switch a workspace's runtime; a model that the new one does not have is replaced."""
    _change(
        options,
        lambda conn: workspace.change_runtime(
            conn,
            ws,
            runtime,
            model=model,
            restore=restore,
            expected_version=expected_version,
            request_id=request_id,
        ),
    )


@_command()
def preview(
    options: Options, ws: _Ws, runtime: _Runtime, model: _Model = None, restore: _Restore = False
) -> None:
    """Show what change would do, and do nothing."""
    _change(
        options,
        lambda conn: workspace.preview_runtime_change(
            conn, ws, runtime, model=model, restore=restore
        ),
    )


@_command()
def set_model(
    options: Options,
    ws: _Ws,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model.")],
    expected_version: _Version = None,
    request_id: _Request = None,
) -> None:
    """Give a workspace a model, which has to be registered for its runtime."""
    _change(
        options,
        lambda conn: workspace.set_model(
            conn, ws, model, expected_version=expected_version, request_id=request_id
        ),
    )


@_command()
def clear_model(
    options: Options, ws: _Ws, expected_version: _Version = None, request_id: _Request = None
) -> None:
    """Take a workspace's model away."""
    _change(
        options,
        lambda conn: workspace.clear_model(
            conn, ws, expected_version=expected_version, request_id=request_id
        ),
    )


@_command()
def rename(
    options: Options,
    ws: _Ws,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    expected_version: _Version = None,
    request_id: _Request = None,
) -> None:
    """Give a workspace another name."""
    _change(
        options,
        lambda conn: workspace.rename_workspace(
            conn, ws, name, expected_version=expected_version, request_id=request_id
        ),
    )


@_command()
def delete(options: Options, ws: _Ws, expected_version: _Version = None) -> None:
    """Delete a workspace and its secrets; its history stays."""
    _change(
        options,
        lambda conn: workspace.delete_workspace(conn, ws, expected_version=expected_version),
    )


@_command()
def show(options: Options, ws: _Ws) -> None:
    """Show a workspace."""
    with database.connection(options) as conn:
        state = workspace.get_workspace(conn, ws)
    if options.as_json:
        output.print_json(state)
    else:
        output.print_state(state)


@_command()
def history(options: Options, ws: _Ws) -> None:
    """List what was written to a workspace, oldest first; also of a deleted one."""
    with database.connection(options) as conn:
        entries = workspace.history(conn, ws)
    columns: dict[str, Callable[[workspace.HistoryEntry], object]] = {
        "": lambda entry: entry.version,
        "at (UTC)": lambda entry: entry.changed_at,
        "action": lambda entry: (
            " ".join(filter(None, [entry.action, entry.secret]))
            + " (no change)" * (not entry.changed)
        ),
        "runtime": lambda entry: entry.runtime,
        "model": lambda entry: entry.model,
        "source": lambda entry: entry.model_source,
        "actor": lambda entry: entry.actor,
    }
    _print_entries(options, entries, columns)


# The fleet


@_command()
def changes(
    options: Options,
    after: Annotated[
        str | None,
        typer.Option(
            "--after",
            metavar="CURSOR",
            help="Begin behind this cursor, or with what is committed from `now` on; else with the "
            "oldest change that was not pruned.",
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, max=10000, help="So many at most.")
    ] = 1000,
    follow: Annotated[
        bool, typer.Option("--follow", help="Wait for more; with --json, one object a line.")
    ] = False,
) -> None:
    """List the committed changes of all workspaces; a workspace's are in order."""
    with database.opened(options) as target:
        with target.connected() as conn:
            if after == "now":
                after = fleet.current_cursor(conn)
            if not follow:
                entries = fleet.changes_after(conn, after, batch=limit)
                _print_entries(options, entries, _FEED)
                return
        for entry in follow_changes(target.connected, after, batch=limit):
            _print_line(options, entry, _FEED.values())


_FEED: dict[str, Callable[[fleet.FeedEntry], object]] = {
    "at (UTC)": lambda entry: entry.changed_at,
    "workspace": lambda entry: entry.workspace_id,
    "version": lambda entry: entry.version,
    "action": lambda entry: entry.action + " (no change)" * (not entry.changed),
    "runtime": lambda entry: entry.runtime,
    "model": lambda entry: entry.model,
    "actor": lambda entry: entry.actor,
    "cursor": lambda entry: entry.cursor,
}


def _print_line(
    options: Options, entry: object, columns: Iterable[Callable[[Any], object]]
) -> None:
    """Print one entry of a list that goes on, and let whoever reads it have it now."""
    if options.as_json:
        output.print_json(entry, indent=None)
    else:
        print("  ".join(output.cell(value(entry)).plain for value in columns))
    sys.stdout.flush()


def _time(text: str) -> datetime:
    """Read a date or a time; without an offset it is in UTC."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter("not a time such as 2026-01-31 or 2026-01-31T12:00Z") from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)


_MoveBatch = Annotated[
    int, typer.Option("--batch", metavar="N", min=1, max=10000, help="So many a transaction.")
]


@_command(_fleet)
def move(
    options: Options,
    from_runtime: Annotated[str, typer.Argument(metavar="FROM", help="The runtime they have.")],
    to_runtime: Annotated[str, typer.Argument(metavar="TO", help="The runtime they get.")],
    restore: _Restore = False,
    request_id: _Request = None,
    batch: _MoveBatch = BATCH,
    dry_run: _DryRun = False,
) -> None:
    """Switch all workspaces of a runtime to another, each as `change` would.

    It can be stopped and called again. One that is refused, or that is held for 30 seconds, stays
    as it is and stops none of the others.
    """
    with database.connection(options) as conn:
        moving = move_all(
            conn,
            from_runtime,
            to_runtime,
            restore=restore,
            request_id=request_id,
            batch=batch,
            dry_run=dry_run,
        )
        _print_moves(options, "Moving", None, moving, dry_run)


@_command(_fleet)
def orphans(options: Options, runtime: _OfRuntime = None) -> None:
    """List the workspaces whose model is not registered for their runtime, or cannot be read."""
    with database.connection(options) as conn:
        entries = fleet.orphans(conn, runtime)
    columns: dict[str, Callable[[fleet.Orphan], object]] = {
        "workspace": lambda entry: entry.workspace_id,
        "runtime": lambda entry: entry.runtime,
        "model": lambda entry: entry.model,
        "problem": lambda entry: entry.problem,
        "a reset gives": lambda entry: entry.reset_model,
        "source": lambda entry: entry.reset_source,
    }
    _print_entries(options, entries, columns)


@_command(_fleet)
def reset(
    options: Options,
    runtime: _OfRuntime = None,
    request_id: _Request = None,
    batch: _MoveBatch = BATCH,
    dry_run: _DryRun = False,
) -> None:
    """Give all orphans a model that is registered: an equivalent, or their runtime's default.

    It can be stopped and called again, as `fleet move`.
    """
    with database.connection(options) as conn:
        total = len(fleet.orphans(conn, runtime))
        resetting = reset_all_orphans(
            conn, runtime, request_id=request_id, batch=batch, dry_run=dry_run
        )
        _print_moves(options, "Resetting", total, resetting, dry_run)


def _print_moves(
    options: Options,
    title: str,
    total: int | None,
    batches: Iterable[list[fleet.MoveEntry]],
    dry_run: bool,
) -> None:
    """Do batch after batch, and print what became of the workspaces."""
    entries: list[fleet.MoveEntry] = []
    with output.progress(title, total) as advance:
        for batch in batches:
            entries += batch
            advance(len(batch))
    if options.as_json:
        outcomes = Counter(entry.outcome for entry in entries)
        output.print_json({"dry_run": dry_run, "outcomes": outcomes, "workspaces": entries})
    else:
        output.print_moves(entries, dry_run)
    if any(entry.outcome in {"refused", "skipped"} for entry in entries):
        raise typer.Exit(Exit.CONFLICT)


@_command(_fleet)
def prune(
    options: Options,
    before: Annotated[
        datetime,
        typer.Option(
            "--before", metavar="TIME", parser=_time, help="Take what is older than this."
        ),
    ],
    batch: _MoveBatch = 1000,
) -> None:
    """Take old changes out of the history; what restore and the newest version need stays."""
    pruned, cursor, finished = 0, None, False
    with database.connection(options) as conn:
        while not finished:
            done = fleet.prune_changes(conn, before, batch=batch, cursor=cursor)
            pruned, cursor, finished = pruned + done.pruned, done.cursor, done.finished
    if options.as_json:
        output.print_json({"pruned": pruned})
    else:
        print(f"Pruned {pruned} changes.")


# Secrets

_Name = Annotated[str, typer.Argument(metavar="NAME", help="The secret's name.")]


@_command(_secret, "set")
def set_secret(options: Options, ws: _Ws, name: _Name, expected_version: _Version = None) -> None:
    """Give a workspace a secret; the value is read from standard input.

    At a terminal it is asked for, unseen. Else one newline at the end does not belong to it.
    """
    if sys.stdin.isatty():
        value = typer.prompt("Value", hide_input=True, confirmation_prompt=True, err=True)
    else:
        value = sys.stdin.read().removesuffix("\n")
    _change(
        options,
        lambda conn: workspace.set_secret(conn, ws, name, value, expected_version=expected_version),
    )


@_command(_secret, "get")
def get_secret(options: Options, ws: _Ws, name: _Name) -> None:
    """Print the value of a workspace's secret."""
    with database.connection(options) as conn:
        value = workspace.get_secret(conn, ws, name)
    if options.as_json:
        output.print_json({"name": name, "value": value})
    else:
        print(value)


@_command(_secret, "list")
def list_secrets(options: Options, ws: _Ws) -> None:
    """List the names of a workspace's secrets."""
    with database.connection(options) as conn:
        entries = workspace.list_secrets(conn, ws)
    columns: dict[str, Callable[[workspace.SecretEntry], object]] = {
        "name": lambda entry: entry.name,
        "updated (UTC)": lambda entry: entry.updated_at,
    }
    _print_entries(options, entries, columns)


@_command(_secret, "delete")
def delete_secret(
    options: Options, ws: _Ws, name: _Name, expected_version: _Version = None
) -> None:
    """Take a secret away from a workspace."""
    _change(
        options,
        lambda conn: workspace.delete_secret(conn, ws, name, expected_version=expected_version),
    )


# The keyring

_Batch = Annotated[
    int, typer.Option("--batch", metavar="N", help="How many workspaces a transaction does.")
]


@_command(_keyring)
def generate(options: Options) -> None:
    """Print a new key-encryption key. Nothing else knows it: keep it."""
    kek = Kek.generate().reveal()
    if options.as_json:
        output.print_json({"kek": kek})
    else:
        print(kek)


@_command(_keyring)
def init(options: Options) -> None:
    """Turn encryption on: make the first key, wrapped by the key-encryption key."""
    with database.connection(options, loaded=False) as conn:
        key_id = keyring.init(conn)
    if options.as_json:
        output.print_json({"key_id": key_id})
    else:
        print(f"Key {key_id} is active: what is set from now on is sealed.")
        print("What is stored plain is sealed by: runtime-registry keyring reseal")


@_command(_keyring)
def status(
    options: Options,
    verify: Annotated[
        bool, typer.Option("--verify", help="Open everything, and count what does not open.")
    ] = False,
) -> None:
    """List the keys with what each seals."""
    with database.connection(options, loaded=False) as conn:
        entries = keyring.status(conn, verify=verify)
    columns: dict[str, Callable[[keyring.StatusEntry], object]] = {
        "key": lambda entry: entry.key_id,
        "state": lambda entry: entry.state,
        "secrets": lambda entry: entry.secrets,
        "in the history": lambda entry: entry.history,
        "unreadable": lambda entry: entry.unreadable,
        "made (UTC)": lambda entry: entry.created_at,
        "retired (UTC)": lambda entry: entry.retired_at,
    }
    _print_entries(options, entries, columns)


@_command(_keyring)
def rotate(options: Options, batch: _Batch = 1000) -> None:
    """Make a new active key, and move to it what others seal.

    It can be stopped while it moves: `keyring reseal` goes on.
    """
    with database.connection(options, loaded=False) as conn:
        key_id = keyring.rotate(conn)
        if not options.as_json:
            print(f"Key {key_id} is active: what is set from now on is sealed by it.")
        _reseal(options, conn, batch, {"key_id": key_id})


@_command(_keyring)
def reseal(options: Options, batch: _Batch = 1000) -> None:
    """Seal with the active key what is stored plain or under another key, while all goes on."""
    with database.connection(options, loaded=False) as conn:
        _reseal(options, conn, batch, {})


def _reseal(
    options: Options, conn: psycopg.Connection[Any], batch: int, answer: dict[str, int]
) -> None:
    resealed = unreadable = 0
    total = sum(
        entry.secrets + entry.history for entry in keyring.status(conn) if entry.state != "active"
    )
    with output.progress("Sealing", total) as advance:
        passed = 0  # what this pass found unreadable; another one finds it again
        for done in keyring.reseal_all(conn, batch=batch):
            resealed += done.resealed
            passed += done.unreadable
            advance(done.resealed)
            if done.next_after is None:
                unreadable, passed = passed, 0
    if options.as_json:
        output.print_json({**answer, "resealed": resealed, "unreadable": unreadable})
        return
    print(f"{resealed} values are resealed.")
    if unreadable:
        print(f"{unreadable} cannot be read and stay as they are.")


@_command(_keyring)
def rewrap(
    options: Options,
    new_kek_file: Annotated[
        Path | None,
        typer.Option(
            "--new-kek-file",
            metavar="FILE",
            help=f"A file with the new one; else {database.NEW_KEK_VARIABLE}.",
        ),
    ] = None,
) -> None:
    """Change the key-encryption key; sessions that have both work before and after."""
    new_kek = database.read_kek(new_kek_file, database.NEW_KEK_VARIABLE)
    if new_kek is None:
        raise typer.BadParameter(f"give --new-kek-file or {database.NEW_KEK_VARIABLE}")
    with database.connection(options, loaded=False) as conn:
        count = keyring.rewrap(conn, new_kek)
    if options.as_json:
        output.print_json({"keys": count})
    else:
        print(f"Wrapped by the new key-encryption key: {count} keys.")


@_command(_keyring)
def retire(
    options: Options,
    key_id: Annotated[int, typer.Argument(metavar="KEY", help="The key's id.")],
) -> None:
    """Remove a key that seals nothing any more."""
    with database.connection(options, loaded=False) as conn:
        keyring.retire(conn, key_id)
    if options.as_json:
        output.print_json({"key_id": key_id})
    else:
        print(f"Key {key_id} is removed.")


@_command(_keyring, "doctor")
def keyring_doctor(options: Options) -> None:
    """Look for what is wrong with the encryption only."""
    _examine(options, checks.ENCRYPTION)


# The HTTP service


@_command()
def serve(
    options: Options,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Where to listen.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="PORT", help="0: any.")] = 8080,
    require_if_match: Annotated[
        bool | None,
        typer.Option("--require-if-match", help="Refuse changes without If-Match with 428."),
    ] = None,
    proxies: Annotated[
        str,
        typer.Option(
            "--proxies", metavar="ADDRESSES", help="Whose X-Forwarded-* headers to believe."
        ),
    ] = "127.0.0.1",
) -> None:
    """Serve HTTP until stopped; RUNTIME_REGISTRY_HTTP_* variables set the rest."""
    _refuse_json(options)
    try:
        from ..http.serve import serve
        from ..http.settings import Settings
    except ModuleNotFoundError as missing:
        if (missing.name or "").startswith("pyapi"):
            raise
        hint = "Install it: pip install 'runtime-registry[cli,http]'."
        error = RegistryError(500, "EXTRA_MISSING", "This needs the extra `http`.", hint)
        _fail(options, error, Exit.UNEXPECTED)
    with database.opened(options) as target:
        try:
            settings = Settings.from_environment(
                database=target.conninfo,
                require_if_match=require_if_match,
                kek=target.kek,
                new_kek=target.new_kek,
            )
        except ValueError as wrong:
            raise typer.BadParameter(str(wrong)) from wrong
        if target.server:
            _print_demo_token(target, host, port)
        serve(settings, host=host, port=port, proxies=proxies)


def _print_demo_token(target: database.Database, host: str, port: int) -> None:
    """Make a token for the playground, which has no other way in."""
    secret, now = access.new_token(), datetime.now(UTC)
    with target.connected() as conn:
        access.create_token(
            conn,
            f"demo {now:%FT%T.%fZ}",
            "admin",
            access.token_hash(secret),
            expires_at=now + timedelta(days=1),
        )
    print(
        f"A token for today: {secret}\n"
        f"curl -H 'Authorization: Bearer {secret}' http://{host}:{port}/runtimes",
        flush=True,
    )


@_command(_token, "create")
def token_create(
    options: Options,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Its bearer, as the history shall name it.")
    ],
    role: Annotated[
        str,
        typer.Option(
            "--role",
            metavar="ROLE",
            help="admin; operator: all but deleting workspaces; workspace: reads one workspace "
            "and sets its model.",
        ),
    ],
    ws: Annotated[
        str | None,
        typer.Option("--workspace", metavar="UUID", help="The one, for the role workspace."),
    ] = None,
    days: Annotated[
        int | None, typer.Option("--days", metavar="N", help="Expire then; else never.", min=1)
    ] = None,
) -> None:
    """Make a token and print it, once: only its hash is kept."""
    if role not in get_args(access.Role):
        raise typer.BadParameter("take admin, operator or workspace", param_hint="--role")
    secret = access.new_token()
    until = datetime.now(UTC) + timedelta(days=days) if days else None
    with database.connection(options) as conn:
        made = access.create_token(
            conn,
            name,
            role,  # type: ignore[arg-type]
            access.token_hash(secret),
            workspace_id=ws,
            expires_at=until,
        )
    if options.as_json:
        output.print_json({**output.as_dict(made), "token": secret})
    else:
        print(secret)


@_command(_token, "list")
def token_list(options: Options) -> None:
    """List the tokens; never the tokens themselves."""
    with database.connection(options) as conn:
        entries = access.list_tokens(conn)
    _print_entries(options, entries, _TOKEN_COLUMNS)


@_command(_token, "revoke")
def token_revoke(
    options: Options, name: Annotated[str, typer.Argument(metavar="NAME", help="Its name.")]
) -> None:
    """End a token, from its next use on."""
    with database.connection(options) as conn:
        revoked = access.revoke_token(conn, name)
    if options.as_json:
        output.print_json(revoked)
    else:
        print("Revoked.")


_TOKEN_COLUMNS: dict[str, Callable[[access.Token], object]] = {
    "name": lambda token: token.name,
    "role": lambda token: token.role,
    "workspace": lambda token: token.workspace_id,
    "created (UTC)": lambda token: token.created_at,
    "expires (UTC)": lambda token: token.expires_at,
    "last used (UTC)": lambda token: token.last_used_at,
    "revoked (UTC)": lambda token: token.revoked_at,
}


# The database


@_command()
def migrate(options: Options, lock_timeout: _LockTimeout = "5s") -> None:
    """Install Runtime Registry in a database, or bring it to this release."""
    with database.opened(options, migrated=False) as target:
        with target.connected():
            pass  # to say why, if it cannot be
        applied = schema.migrate(target.conninfo, lock_timeout=lock_timeout)
    if options.as_json:
        output.print_json({"revision": schema.head_revision(), "applied": applied})
    elif applied:
        print(f"Migrated: {', '.join(applied)}.")
    else:
        print(f"Nothing to do: the database is at revision {schema.head_revision()}.")


@_command()
def uninstall(
    options: Options,
    discard_workspaces: Annotated[
        bool, typer.Option("--discard-workspaces", help="Destroy the workspaces that there are.")
    ] = False,
    lock_timeout: _LockTimeout = "5s",
) -> None:
    """Take Runtime Registry out of a database; refused while there are workspaces."""
    with database.opened(options, migrated=False) as target:
        with target.connected():
            pass  # to say why, if it cannot be
        undone = schema.downgrade(
            target.conninfo, lock_timeout=lock_timeout, discard_workspaces=discard_workspaces
        )
    if options.as_json:
        output.print_json({"revision": None, "undone": undone})
    elif undone:
        print("Runtime Registry is uninstalled.")
    else:
        print("Nothing to do: Runtime Registry is not installed.")


@_command()
def doctor(options: Options) -> None:
    """Look for what is wrong with a database, or not as it should be."""
    _examine(options)


def _examine(options: Options, only: Container[str] | None = None) -> None:
    with database.connection(options) as conn:
        found = list(checks.examine(conn, only))
    found += checks.examine_file(options.kek_file)
    healthy = all(check.status != "problem" for check in found)
    if options.as_json:
        output.print_json({"ok": healthy, "checks": found})
    else:
        output.print_checks(found)
    if not healthy:
        raise typer.Exit(Exit.UNHEALTHY)


@_command(context_settings={"ignore_unknown_options": True})
def psql(
    options: Options,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="ARGUMENTS", help="For psql, after --.", show_default=False),
    ] = None,
) -> None:
    """Open psql on the database."""
    _refuse_json(options)
    with database.opened(options) as target:
        try:
            code = target.psql(arguments or [])
        except FileNotFoundError:
            hint = "Install PostgreSQL's client programs."
            error = RegistryError(500, "PSQL_MISSING", "There is no psql on the PATH.", hint)
            _fail(options, error, Exit.UNEXPECTED)
    raise typer.Exit(code)


@_command()
def demo(options: Options) -> None:
    """Tell the story of one workspace: the calls, and what they answer."""
    _refuse_json(options)
    with database.connection(options) as conn:
        ws = story.run(conn)
    # Under its bare name if that is what would be found, else as it was called.
    called = sys.argv[0]
    found = shutil.which("runtime-registry")
    command = "runtime-registry" if found and Path(found) == Path(called).absolute() else called
    if options.database:
        command += " --database ..."
    print(
        f"""
Look around:

   {command} psql

   select * from registry.list_models('google-adk');

   select runtime, model, model_was_reset
   from workspace.change_runtime('{ws}', 'codex');"""
    )


def _refuse_json(options: Options) -> None:
    if options.as_json:
        raise typer.BadParameter("this command has no JSON to print", param_hint="--json")
