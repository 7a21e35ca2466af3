"""The command line: what it prints, on which database it works, and the codes it exits with."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from typer.testing import CliRunner, Result

from databases import Database, wait_until_blocked
from pyapi import (
    authenticate,
    change_runtime,
    create_workspace,
    get_secret,
    get_workspace,
    history,
    keyring,
    list_runtimes,
    schema,
    set_model,
)
from pyapi.access import token_hash
from pyapi.cli.app import app
from pyapi.cli.database import named
from pyapi.cli.doctor import pgcrypto
from pyapi.cli.exits import Exit

REVISIONS = [f"{number:04d}" for number in range(1, int(schema.head_revision()) + 1)]

KIMI = "moonshot/kimi-k2.6"
GEMINI = "platform:gemini-2.5-pro"
SCRIPT = str(Path(sys.executable).parent / "runtime-registry")
NOBODY = "00000000-0000-0000-0000-000000000000"

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but a test itself names a database, and the developer's playground is left alone."""
    for name in list(os.environ):
        if name.startswith(("PG", "RUNTIME_REGISTRY_")) or name in {
            "DATABASE_URL",
            "FORCE_COLOR",
            "GITHUB_ACTIONS",
        }:
            monkeypatch.delenv(name)
    monkeypatch.setenv("RUNTIME_REGISTRY_HOME", os.devnull)


@pytest.fixture
def database(keyless: Database) -> Database:
    """Which key there is, and who has the KEK, is for a test to say."""
    return keyless


@pytest.fixture
def db(database: Database) -> psycopg.Connection[Any]:
    """A look into the database that `run` works on."""
    return database.connect(autocommit=True)


@pytest.fixture
def run(database: Database) -> Run:
    """Run a command on the database, in this process."""

    def run(*arguments: str, **options: Any) -> Result:
        return CliRunner().invoke(app, ["--database", database.dsn, *arguments], **options)

    return run


@pytest.fixture
def ws(db: psycopg.Connection[Any]) -> str:
    """A workspace on claude-code with a model that google-adk does not have."""
    return str(create_workspace(db, "research", "claude-code", model=KIMI).workspace_id)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A home for the embedded server."""
    with tempfile.TemporaryDirectory(prefix="tests-", dir="/tmp") as directory:
        home = Path(directory)
        home.chmod(0o711)  # if we are root, the server's user has to get in
        yield home


def succeed(result: Result) -> str:
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


def error_of(result: Result) -> dict[str, Any]:
    """The JSON document on standard error, with nothing on standard output."""
    assert result.stdout == ""
    error: dict[str, Any] = json.loads(result.stderr)
    return error


def fields(db: psycopg.Connection[Any], composite: str) -> list[str]:
    """The fields of a composite type, in order."""
    rows = db.execute(
        "select attname from pg_attribute where attrelid = %s::regclass order by attnum",
        [composite],
    )
    return [name for (name,) in rows]


def script(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command."""
    return subprocess.run(
        [SCRIPT, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
    )


# What is printed


@pytest.mark.parametrize(
    ("composite", "arguments"),
    [
        ("workspace.change", ["create", "new", "--runtime", "hermes"]),
        ("workspace.change", ["change", "WS", "google-adk"]),
        ("workspace.change", ["preview", "WS", "google-adk"]),
        ("workspace.change", ["set-model", "WS", "opus"]),
        ("workspace.change", ["clear-model", "WS"]),
        ("workspace.change", ["delete", "WS"]),
        ("workspace.change", ["secret", "delete", "WS", "A"]),
        ("workspace.state", ["show", "WS"]),
        ("fleet.registry_load", ["load", "--dry-run"]),
        ("fleet.registry_load", ["registry", "restore", "1"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_json_is_one_object_with_the_sql_fields(
    run: Run, ws: str, db: psycopg.Connection[Any], composite: str, arguments: list[str]
) -> None:
    command = [ws if argument == "WS" else argument for argument in arguments]
    answer = json.loads(succeed(run(*command, "--json")))
    assert list(answer) == fields(db, composite)


@pytest.mark.parametrize(
    ("composite", "arguments"),
    [
        ("registry.runtime_entry", ["runtimes"]),
        ("registry.model_entry", ["models", "google-adk"]),
        ("workspace.history_entry", ["history", "WS"]),
        ("workspace.secret_entry", ["secret", "list", "WS"]),
        ("keyring.status_entry", ["keyring", "status"]),
        ("fleet.revision", ["registry", "revisions"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_json_of_a_list_is_an_array_of_objects_with_the_sql_fields(
    run: Run, ws: str, db: psycopg.Connection[Any], composite: str, arguments: list[str]
) -> None:
    command = [ws if argument == "WS" else argument for argument in arguments]
    entries = json.loads(succeed(run(*command, "--json")))
    assert entries
    assert [list(entry) for entry in entries] == [fields(db, composite)] * len(entries)


def test_json_may_be_asked_for_before_or_after_the_commands_name(run: Run, ws: str) -> None:
    assert json.loads(succeed(run("--json", "show", ws))) == json.loads(
        succeed(run("show", ws, "--json"))
    )


def test_json_keeps_values_as_they_are(run: Run, ws: str, db: psycopg.Connection[Any]) -> None:
    state = get_workspace(db, ws)
    answer = json.loads(succeed(run("show", ws, "--json")))
    assert answer["workspace_id"] == ws
    assert answer["model_registered"] is True
    assert answer["version"] == 1
    assert answer["created_at"] == state.created_at.isoformat()


def test_people_get_tables_without_control_codes_in_a_pipe(run: Run, ws: str) -> None:
    changed = succeed(run("change", ws, "google-adk"))
    assert "claude-code -> google-adk" in changed
    assert f"{KIMI} -> {GEMINI} (reset: default)" in changed
    history = succeed(run("history", ws)).splitlines()
    assert [line.split()[0] for line in history[1:]] == ["1", "2"]
    for text in (changed, *history):
        assert "\x1b" not in text


def test_a_pipe_gets_every_value_whole(run: Run) -> None:
    (hermes,) = (line for line in succeed(run("runtimes")).splitlines() if "hermes" in line)
    assert hermes.count(",") == 21
    assert "byok-minimax" in hermes


def test_what_a_terminal_would_obey_is_printed_escaped(
    run: Run, ws: str, db: psycopg.Connection[Any]
) -> None:
    db.execute("update workspace.workspaces set name = %s", ["[bold]x\x1b[2J\u202e"])
    assert "[bold]x\\x1b[2J\\u202e" in succeed(run("show", ws))


def test_a_change_that_is_not_needed_says_so(run: Run, ws: str) -> None:
    answer = succeed(run("change", ws, "claude-code"))
    assert "1 (nothing changed)" in answer
    assert f"{KIMI} (kept)" in answer


def test_a_preview_changes_nothing(run: Run, ws: str, db: psycopg.Connection[Any]) -> None:
    before = get_workspace(db, ws)
    assert json.loads(succeed(run("preview", ws, "google-adk", "--json")))["model"] == GEMINI
    assert get_workspace(db, ws) == before


def test_every_option_of_a_change_reaches_the_database(
    run: Run, ws: str, db: psycopg.Connection[Any]
) -> None:
    succeed(run("change", ws, "google-adk", "--model", "gemini-2.5-flash", "--request-id", "r1"))
    assert get_workspace(db, ws).model == "gemini-2.5-flash"
    again = run("change", ws, "google-adk", "--model", "gemini-2.5-flash", "--request-id", "r1")
    assert "version        2" in succeed(again)
    succeed(run("change", ws, "claude-code", "--restore", "--expected-version", "2"))
    assert get_workspace(db, ws).model == KIMI


def test_a_workspace_can_be_given_its_id(run: Run, db: psycopg.Connection[Any]) -> None:
    succeed(run("create", "new", "--runtime", "codex", "--model", "gpt-5.4", "--id", NOBODY))
    state = get_workspace(db, NOBODY)
    assert (state.name, state.runtime, state.model) == ("new", "codex", "gpt-5.4")


# Refusals and exit codes


def test_a_refusal_tells_people_what_is_valid_and_what_to_do(run: Run, ws: str) -> None:
    result = run("set-model", ws, GEMINI)
    assert result.exit_code == Exit.REFUSED
    assert result.stdout == ""
    sentence, valid, more, hint = result.stderr.splitlines()
    assert sentence == "error: The model is not registered for the runtime claude-code."
    assert valid.startswith("  valid models: sonnet, opus, haiku, ")
    assert more == "  and 21 more, see: runtime-registry models claude-code"
    assert hint.startswith("hint: ")


def test_a_refusal_tells_scripts_the_same_as_json(run: Run, ws: str) -> None:
    result = run("set-model", ws, GEMINI, "--json")
    error = error_of(result)
    assert result.exit_code == Exit.REFUSED
    assert (error["status"], error["code"]) == (422, "MODEL_NOT_REGISTERED")
    assert error["detail"]["valid_models_total"] == len(error["detail"]["valid_models"]) == 31


def test_an_unknown_runtime_is_answered_with_the_known_ones(run: Run, ws: str) -> None:
    result = run("change", ws, "cluade-code")
    assert result.exit_code == Exit.REFUSED
    assert "  valid runtimes: claude-code, hermes, " in result.stderr


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (Exit.USAGE, ["change", "WS"]),
        (Exit.USAGE, ["no-such-command"]),
        (Exit.USAGE, ["show", "WS", "--no-such-option"]),
        (Exit.USAGE, ["change", "WS", "codex", "--expected-version", "two"]),
        (Exit.USAGE, ["load", "/no/such/file"]),
        (Exit.USAGE, ["psql"]),
        (Exit.INVALID_ARGUMENT, ["show", "not-a-uuid"]),
        (Exit.INVALID_ARGUMENT, ["change", "WS", " "]),
        (Exit.INVALID_ARGUMENT, ["secret", "set", "WS", "MODEL"]),
        (Exit.INVALID_ARGUMENT, ["keyring", "reseal", "--batch", "0"]),
        (Exit.NOT_FOUND, ["show", NOBODY]),
        (Exit.NOT_FOUND, ["secret", "get", "WS", "NONE"]),
        (Exit.NOT_FOUND, ["keyring", "retire", "7"]),
        (Exit.CONFLICT, ["change", "WS", "codex", "--expected-version", "7"]),
        (Exit.SECRET, ["keyring", "init"]),
        (Exit.CONFLICT, ["create", "twin", "--runtime", "codex", "--id", "WS"]),
        (Exit.REFUSED, ["change", "WS", "nonesuch"]),
        (Exit.REFUSED, ["change", "WS", "external"]),
        (Exit.REFUSED, ["set-model", "WS", "nonesuch"]),
    ],
)
def test_the_exit_code_says_what_kind_of_failure_it_was(
    run: Run, ws: str, code: Exit, arguments: list[str]
) -> None:
    command = [ws if argument == "WS" else argument for argument in arguments]
    result = run(*command, "--json")
    assert result.exit_code == code
    assert error_of(result)["message"]


def test_exit_codes_are_in_the_help() -> None:
    text = " ".join(CliRunner().invoke(app, ["--help"]).stdout.split())
    assert all(f"{code:d} {code.meaning}" in text for code in Exit)


def test_a_secret_that_cannot_be_read_has_its_own_exit_code(
    run: Run, ws: str, db: psycopg.Connection[Any]
) -> None:
    db.execute("update workspace.secrets set sealed = %s", [b"\xff\x00"])
    assert run("show", ws).exit_code == Exit.SECRET
    succeed(run("set-model", ws, "opus"))
    assert get_workspace(db, ws).model == "opus"


def test_a_role_without_rights_is_told_which_to_ask_for(
    database: Database, db: psycopg.Connection[Any]
) -> None:
    stranger = f"stranger_of_{database.name}"
    db.execute(f"create role {stranger}")
    try:
        dsn = make_conninfo(database.dsn, options=f"-c role={stranger}")
        result = CliRunner().invoke(app, ["--database", dsn, "runtimes"])
        doctor = CliRunner().invoke(app, ["--database", dsn, "doctor", "--json"])
    finally:
        db.execute(f"drop role {stranger}")
    assert result.exit_code == Exit.FORBIDDEN
    assert "runtime_registry_reader" in result.stderr
    assert doctor.exit_code == Exit.UNHEALTHY
    assert "runtime_registry_reader" in diagnosis(doctor)["rights"][1]


def test_a_lock_that_is_not_to_be_had_in_time_is_worth_another_try(
    run: Run, database: Database, ws: str
) -> None:
    database.connect().execute("select from workspace.workspaces for update")
    impatient = make_conninfo(database.dsn, options="-c lock_timeout=1ms")
    result = CliRunner().invoke(app, ["--database", impatient, "--json", "change", ws, "codex"])
    assert result.exit_code == Exit.UNAVAILABLE
    assert error_of(result)["detail"]["safe_to_retry"] is True


def test_ctrl_c_ends_a_waiting_command_quietly(
    database: Database, db: psycopg.Connection[Any], ws: str
) -> None:
    database.connect().execute("select from workspace.workspaces for update")
    with subprocess.Popen(
        [SCRIPT, "--database", database.dsn, "change", ws, "codex"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            pid = None
            while pid is None and process.poll() is None:
                pid = db.execute(
                    "select max(pid) from pg_stat_activity where datname = current_database()"
                    " and application_name = 'runtime-registry' and wait_event_type = 'Lock'"
                ).fetchall()[0][0]
            assert pid is not None
            wait_until_blocked(db, pid)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (Exit.INTERRUPTED, "", "")
    assert get_workspace(db, ws).version == 1


def test_a_reader_who_leaves_early_causes_no_traceback(database: Database) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [SCRIPT, "--database", database.dsn, "models", "claude-code"],
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        os.close(write)
    assert done.returncode != 0
    assert done.stderr == ""


@pytest.mark.parametrize("module", ["typer", "rich", "yaml"])
def test_without_the_extra_the_command_says_what_to_install(module: str) -> None:
    program = f"import sys; sys.modules[{module!r}] = None; from pyapi.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "runtime-registry needs the extra `cli`: pip install 'runtime-registry[cli]'"
    ]


# Which database


@pytest.mark.parametrize(
    ("option", "environment", "conninfo"),
    [
        ("dbname=a", {"DATABASE_URL": "dbname=b", "PGDATABASE": "c"}, "dbname=a"),
        (None, {"DATABASE_URL": "dbname=b", "PGDATABASE": "c"}, "dbname=b"),
        (None, {"DATABASE_URL": "", "PGDATABASE": "c"}, ""),
        (None, {"PGSERVICE": "c"}, ""),
        (None, {"PGHOST": "c"}, ""),
        (None, {"PGUSER": "somebody", "PGPASSWORD": "x"}, None),
        (None, {}, None),
        ("fleet", {}, "dbname=fleet"),
        ("postgresql://h/d", {}, "postgresql://h/d"),
        ("postgresql+psycopg://u:p%40@h/d", {}, "postgresql://u:p%40@h/d"),
        (None, {"DATABASE_URL": "postgres+asyncpg://h/d"}, "postgres://h/d"),
        ("postgresql://h:1,i:2/d", {}, "postgresql://h:1,i:2/d"),
    ],
)
def test_the_option_comes_before_database_url_and_that_before_libpqs_variables(
    option: str | None, environment: dict[str, str], conninfo: str | None
) -> None:
    assert named(option, environment) == conninfo


def test_an_sqlalchemy_url_works(database: Database) -> None:
    parts = {key: str(value) for key, value in conninfo_to_dict(database.dsn).items()}
    query = "&".join(f"{key}={value.replace('/', '%2F')}" for key, value in parts.items())
    result = CliRunner().invoke(
        app, ["runtimes"], env={"DATABASE_URL": f"postgresql+psycopg://?{query}"}
    )
    assert "hermes" in succeed(result)


def test_libpqs_variables_work(database: Database) -> None:
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD"}
    parts = conninfo_to_dict(database.dsn)
    environment = {name: str(parts[key]) for key, name in names.items() if parts.get(key)}
    result = CliRunner().invoke(app, ["runtimes"], env={**environment, "PGDATABASE": database.name})
    assert "hermes" in succeed(result)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u:hun@ter2@h/d",
        "postgresql://u:hun/ter2@h/d",
        "postgresql://u:12/ter2@h/d",
        "u:hunter2@h/d",
        "host=h password=hun ter2",
        "mysql://u:hunter2@h/d",
        "",
        " ",
    ],
)
def test_a_conninfo_that_is_wrong_is_refused_without_repeating_it(dsn: str) -> None:
    for before in ([], ["--json"]):
        result = CliRunner().invoke(app, [*before, "runtimes", "--database", dsn])
        assert result.exit_code == Exit.USAGE
        assert "hun" not in result.output
        assert "ter2" not in result.output


def test_a_database_that_is_not_there_is_unavailable_and_no_password_is_shown() -> None:
    dsn = "postgresql://user:hunter2@/nowhere?host=%2Fno%2Fsuch%2Fplace"
    result = CliRunner().invoke(app, ["runtimes", "--database", dsn])
    assert result.exit_code == Exit.UNAVAILABLE
    assert "/no/such/place" in result.stderr
    assert "hunter2" not in result.output
    for command in ("migrate", "uninstall", "doctor"):
        again = CliRunner().invoke(app, [command, "--database", dsn, "--json"])
        assert again.exit_code == Exit.UNAVAILABLE
        assert error_of(again)["code"] == "CONNECTION_LOST"


@pytest.mark.parametrize(
    "arguments",
    [["runtimes"], ["load"], ["show", NOBODY], ["create", "x", "--runtime", "hermes"], ["demo"]],
    ids=lambda arguments: arguments[0],
)
def test_a_database_of_ones_own_is_never_migrated_by_the_way(
    empty_database: Callable[[], Database], arguments: list[str]
) -> None:
    database = empty_database()
    result = CliRunner().invoke(app, ["--database", database.dsn, *arguments])
    assert result.exit_code == Exit.NOT_INSTALLED
    assert "runtime-registry migrate" in result.stderr
    assert schema.current_revision(database.dsn) is None


def test_migrate_load_and_uninstall(empty_database: Callable[[], Database]) -> None:
    database = empty_database()

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--database", database.dsn])

    head = schema.head_revision()
    assert json.loads(succeed(run("migrate", "--json"))) == {
        "revision": head,
        "applied": REVISIONS,
    }
    assert succeed(run("migrate")) == f"Nothing to do: the database is at revision {head}.\n"
    assert "Revision 1 is loaded" in succeed(run("load"))
    assert "Revision 1 stays" in succeed(run("load"))
    succeed(run("create", "x", "--runtime", "hermes"))
    assert run("uninstall").exit_code == Exit.CONFLICT
    assert schema.current_revision(database.dsn) == head
    undone = json.loads(succeed(run("uninstall", "--discard-workspaces", "--json")))
    assert undone == {"revision": None, "undone": REVISIONS[::-1]}
    assert "not installed" in succeed(run("uninstall"))
    assert schema.current_revision(database.dsn) is None


# Manifests


def manifest_text(write: Callable[[Any], str]) -> str:
    manifest = schema.default_manifest()
    manifest["runtimes"].append({"name": "new", "arms": [{"provider": "groq"}]})
    return write(manifest)


@pytest.mark.parametrize(("suffix", "write"), [(".yaml", yaml.safe_dump), (".json", json.dumps)])
def test_a_manifest_is_loaded_from_yaml_and_json_and_standard_input(
    run: Run,
    db: psycopg.Connection[Any],
    tmp_path: Path,
    suffix: str,
    write: Callable[[Any], str],
) -> None:
    file = tmp_path / f"manifest{suffix}"
    file.write_text(manifest_text(write))
    preview = succeed(run("load", str(file), "--dry-run"))
    assert preview.splitlines()[0].startswith("+ runtime ")
    assert "Nothing is loaded" in preview
    assert "new" not in {entry.runtime for entry in list_runtimes(db)}
    assert "Revision 2 is loaded: 2 added" in succeed(run("load", str(file)))
    assert "new" in {entry.runtime for entry in list_runtimes(db)}
    assert "Revision 2 stays" in succeed(run("load", "-", input=file.read_text()))


def test_all_problems_of_a_manifest_are_listed_with_their_paths(run: Run) -> None:
    text = "schema_version: 1\nproviders: [{name: a, color: red}]\nruntimes: [{name: 2024-01-01}]\n"
    result = run("load", "-", input=text + "more: 1\n")
    assert result.exit_code == Exit.REFUSED
    assert "  more: is not a known key" in result.stderr
    assert "  providers[0].color: is not a known key" in result.stderr
    assert "2024-01-01" not in result.stderr  # a string, so no problem


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("providers: []\nruntimes: []\nproviders: []\n", "line 1, column 1"),
        ("runtimes:\n  - {name: a, name: b}\n", "line 2, column 5"),
        ('{"runtimes": [{"name": "a", "name": "b"}]}', "-"),
        ("runtimes: [\n", "line 2, column 1"),
        ('{"runtimes": [', "-"),
    ],
)
def test_text_that_is_broken_or_has_a_key_twice_is_refused_with_the_place(
    run: Run, db: psycopg.Connection[Any], text: str, path: str
) -> None:
    result = run("load", "-", "--json", input=text)
    assert result.exit_code == Exit.REFUSED
    (problem,) = error_of(result)["detail"]["problems"]
    assert problem["path"] == path
    assert len(list_runtimes(db)) == 9


def test_workspaces_in_the_way_of_a_manifest_are_listed(run: Run, ws: str, tmp_path: Path) -> None:
    manifest = schema.default_manifest()
    claude_code = manifest["runtimes"].pop(0)
    assert claude_code["name"] == "claude-code"
    in_use = run("load", "-", input=json.dumps(manifest))
    assert in_use.exit_code == Exit.CONFLICT
    assert "  claude-code: 1 workspaces" in in_use.stderr

    manifest["runtimes"].append({"name": "claude-code"})
    dry_run = succeed(run("load", "-", "--dry-run", input=json.dumps(manifest)))
    assert f"! workspace {ws} on claude-code loses {KIMI}; a reset would give it nothing" in dry_run
    orphans = run("load", "-", input=json.dumps(manifest))
    assert orphans.exit_code == Exit.CONFLICT
    assert f"  {ws} on claude-code" in orphans.stderr


def test_a_dry_run_shows_every_difference_in_a_line(run: Run) -> None:
    manifest = {
        "schema_version": 1,
        "providers": [{"name": "p"}, {"name": "q"}],
        "runtimes": [
            {"name": "r", "arms": [{"provider": "p", "models": ["a", "b", "c", "gone"]}]},
            {"name": "s", "arms": [{"provider": "q", "models": ["a"]}]},
        ],
        "equivalents": [["gone", "b"]],
    }
    succeed(run("load", "-", input=json.dumps(manifest)))
    orphans = [
        json.loads(succeed(run("create", "w", "--runtime", "r", "--model", "gone", "--json")))
        for _ in range(12)
    ]
    manifest = {
        "schema_version": 1,
        "providers": [{"name": "p", "billed_to": "platform"}, {"name": "new"}],
        "runtimes": [
            {"name": "s", "model_policy": "any"},
            {"name": "r", "arms": [{"provider": "p", "models": ["c", "b", "a"]}]},
        ],
        "deprecations": [
            {"model": "c", "deprecated_at": "2026-03-01", "successor": "b"},
        ],
    }
    text = json.dumps(manifest)
    lines = succeed(run("load", "-", "--dry-run", input=text)).splitlines()
    first = min(each["workspace_id"] for each in orphans)
    assert [line for line in lines if not line.startswith("!")] == [
        "+ provider new: auth_env [], billed_to tenant, case_sensitive true, model_aliases [], "
        "model_prefixes []",
        "- provider q: auth_env [], billed_to tenant, case_sensitive true, model_aliases [], "
        "model_prefixes []",
        "- arm s q",
        "- model r p gone",
        "- model s q a",
        "- equivalent b, gone",
        "~ provider p: billed_to tenant -> platform",
        "~ runtime r: default_model a -> c",
        "~ runtime s: default_model a -> null, model_policy registered -> any",
        "~ model r p c: deprecated_at 2026-03-01T00:00:00Z, successor b",
        "~ order of runtimes: r, s -> s, r",
        "~ order of models r p: a, c -> c, a",
        "Nothing is loaded, this is a dry run: 1 added, 5 removed, 6 changed, 12 orphaned.",
    ]
    assert [line for line in lines if line.startswith("!")][0::10] == [
        f"! workspace {first} on r loses gone; a reset would give it c (default)",
        "! and 2 more",
    ]
    kept = succeed(run("load", "-", "--on-orphan", "keep", input=text)).splitlines()
    assert kept == [
        "Revision 3 is loaded: 1 added, 5 removed, 6 changed.",
        "Left with a model that is not registered any more: 12.",
    ]
    assert run("load", "-", "--on-orphan", "drop", input=text).exit_code == Exit.USAGE


def test_revisions_are_listed_exported_and_restored(run: Run, tmp_path: Path) -> None:
    changed = schema.default_manifest()
    changed["runtimes"].append({"name": "new"})
    succeed(run("load", "-", input=json.dumps(changed)))
    assert json.loads(succeed(run("registry", "export"))) == changed
    file = tmp_path / "first.json"
    file.write_text(succeed(run("registry", "export", "1")))
    assert json.loads(file.read_text()) == schema.default_manifest()

    dry_run = succeed(run("registry", "restore", "1", "--dry-run"))
    assert "- runtime new: default_model null, model_policy registered" in dry_run
    restored = "Revision 3 is loaded: 0 added, 1 removed, 0 changed.\n"
    assert succeed(run("registry", "restore", "1")) == restored
    table = [line.split() for line in succeed(run("registry", "revisions")).splitlines()]
    assert table[1][:2] == ["*", "3"]
    assert [row[0] for row in table[2:]] == ["2", "1"]
    told = json.loads(succeed(run("registry", "revisions", "--json")))
    assert [entry["restored_from"] for entry in told] == [1, None, None]
    # What was exported is that very manifest.
    same = "Revision 3 stays: the manifest changes nothing.\n"
    assert succeed(run("load", str(file))) == same

    for command in (["registry", "restore", "9"], ["registry", "export", "9"]):
        missing = run(*command, "--json")
        assert (missing.exit_code, error_of(missing)["code"]) == (
            Exit.NOT_FOUND, "REVISION_NOT_FOUND",
        )  # fmt: skip


def test_deprecated_models_are_shown_wherever_they_are_met(run: Run, ws: str) -> None:
    assert json.loads(succeed(run("deprecations", "--json"))) == []
    assert "deprecated" not in succeed(run("models", "claude-code")) + succeed(run("show", ws))
    manifest = schema.default_manifest()
    manifest["deprecations"] = [
        {"model": KIMI, "runtimes": ["claude-code"], "deprecated_at": "2020-01-01",
         "sunset_at": "2120-06-01", "successor": "opus"},
        {"model": "opus", "deprecated_at": "2120-06-01"},
    ]  # fmt: skip
    succeed(run("load", "-", input=json.dumps(manifest)))
    until = "deprecated, ends 2120-06-01 00:00:00 UTC"
    for command in (["show", ws], ["set-model", ws, KIMI], ["preview", ws, "claude-code"]):
        assert until in succeed(run(*command)), command
    assert "lifetime" not in succeed(run("set-model", ws, "opus"))
    succeed(run("set-model", ws, KIMI))

    row = next(line for line in succeed(run("models", "claude-code")).splitlines() if KIMI in line)
    assert row.split()[-5:] == ["2020-01-01", "00:00:00", "2120-06-01", "00:00:00", "opus"]
    _, used = succeed(run("deprecations")).splitlines()
    since = "2020-01-01 00:00:00  2120-06-01 00:00:00  opus"
    assert used.rstrip() == f"{ws}  claude-code  {KIMI}  {since}"
    (entry,) = json.loads(succeed(run("deprecations", "--json")))
    assert (entry["workspace_id"], entry["sunset_at"][:10]) == (ws, "2120-06-01")


# doctor


def diagnosis(result: Result) -> dict[str, tuple[str, str]]:
    document = json.loads(result.stdout)
    checks = {each["check"]: (each["status"], each["finding"]) for each in document["checks"]}
    assert document["ok"] == (result.exit_code == 0)
    assert document["ok"] == all(status != "problem" for status, _ in checks.values())
    return checks


def test_doctor_finds_a_sound_database_sound_and_says_that_secrets_are_plain(
    run: Run, ws: str
) -> None:
    checks = diagnosis(run("doctor", "--json"))
    assert checks.pop("secrets") == ("warning", "stored plain, 1 so far: the keyring has no key")
    assert checks["KEK"] == ("ok", "not needed: the keyring has no key")
    checks.pop("server log")  # the server's own business here
    assert {status for status, _ in checks.values()} == {"ok"}
    assert checks["registry"] == ("ok", "9 runtimes, 52 models")
    assert "secrets" in succeed(run("doctor"))


def test_doctor_warns_of_settings_that_log_models(
    run: Run, database: Database, db: psycopg.Connection[Any]
) -> None:
    for setting in ("log_statement = 'all'", "log_parameter_max_length_on_error = -1"):
        db.execute(f"alter database {database.name} set {setting}")
    result = run("doctor", "--json")
    assert result.exit_code == 0
    status, finding = diagnosis(result)["server log"]
    assert status == "warning"
    assert "log_statement = all" in finding
    assert "log_parameter_max_length_on_error = -1" in finding


@pytest.mark.parametrize(
    ("version", "status"),
    [
        (150015, "warning"),
        (150016, "ok"),
        (160011, "warning"),
        (160012, "ok"),
        (170007, "warning"),
        (170008, "ok"),
        (170010, "ok"),
        (180001, "warning"),
        (180002, "ok"),
        (190000, "ok"),
    ],
)
def test_doctor_warns_of_a_pgcrypto_that_sealed_bytes_can_break(version: int, status: str) -> None:
    found, finding = pgcrypto(version)
    assert found == status
    assert ("CVE-2026-2005" in finding) == (status == "warning")


def test_doctor_finds_a_dead_workspace(run: Run, ws: str, db: psycopg.Connection[Any]) -> None:
    db.execute("update workspace.secrets set sealed = %s", [GEMINI.encode()])
    result = run("doctor", "--json")
    assert result.exit_code == Exit.UNHEALTHY
    status, finding = diagnosis(result)["workspaces"]
    assert status == "problem"
    assert ws in finding
    assert GEMINI not in result.output


def test_doctor_finds_that_nothing_is_installed_or_loaded(
    empty_database: Callable[[], Database],
) -> None:
    database = empty_database()
    arguments = ["doctor", "--json", "--database", database.dsn]
    missing = CliRunner().invoke(app, arguments)
    assert missing.exit_code == Exit.UNHEALTHY
    assert diagnosis(missing)["schema"][0] == "problem"
    schema.migrate(database.dsn)
    empty = CliRunner().invoke(app, arguments)
    assert empty.exit_code == Exit.UNHEALTHY
    checks = diagnosis(empty)
    assert checks["schema"][0] == "ok"
    assert "runtime-registry load" in checks["registry"][1]


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("runtime_registry_reader", "read"),
        ("runtime_registry_operator", "read, change workspaces"),
        (
            "runtime_registry_admin",
            "read, change workspaces, load a registry, manage the keyring",
        ),
    ],
)
def test_doctor_says_what_a_role_may_do_and_what_it_could_not_look_at(
    database: Database, role: str, may: str
) -> None:
    dsn = make_conninfo(database.dsn, options=f"-c role={role}")
    result = CliRunner().invoke(app, ["doctor", "--json", "--database", dsn])
    assert result.exit_code == 0
    checks = diagnosis(result)
    assert checks["rights"] == ("ok", f"{role} may {may}")
    assert checks["workspaces"][0] == "ok"
    hidden = ["schema", "registry revision"]
    if role != "runtime_registry_admin":
        hidden += ["KEK", "secrets"]
    for name in hidden:
        assert checks[name] == ("warning", "not checked: the role may not read this")


# Secrets


def test_a_secret_is_read_from_standard_input_and_kept_as_it_is(
    run: Run, ws: str, db: psycopg.Connection[Any]
) -> None:
    succeed(run("secret", "set", ws, "API_KEY", input="sk-1\n\n"))
    assert get_secret(db, ws, "API_KEY") == "sk-1\n"
    assert succeed(run("secret", "get", ws, "API_KEY")) == "sk-1\n\n"
    document = json.loads(succeed(run("secret", "get", ws, "API_KEY", "--json")))
    assert document == {"name": "API_KEY", "value": "sk-1\n"}
    names = [line.split()[0] for line in succeed(run("secret", "list", ws)).splitlines()]
    assert names == ["name", "API_KEY", "MODEL"]
    stale = run("secret", "set", ws, "API_KEY", "--expected-version", "1", input="sk-2")
    assert stale.exit_code == Exit.CONFLICT
    assert "nothing changed" in succeed(run("secret", "set", ws, "API_KEY", input="sk-1\n\n"))
    succeed(run("secret", "delete", ws, "API_KEY", "--expected-version", "2"))
    assert "delete_secret API_KEY" in succeed(run("history", ws))
    assert run("secret", "get", ws, "API_KEY").exit_code == Exit.NOT_FOUND


def test_at_a_terminal_a_secret_is_asked_for_twice_and_not_shown(
    database: Database, ws: str, db: psycopg.Connection[Any]
) -> None:
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [SCRIPT, "--database", database.dsn, "secret", "set", ws, "API_KEY"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # our own terminal is none of its business
        text=True,
    ) as process:
        os.close(theirs)
        assert process.stderr
        for prompt in ("Value: ", "\nRepeat for confirmation: "):
            assert process.stderr.read(len(prompt)) == prompt
            os.write(ours, b"sk-typed\n")
        out, err = process.communicate()
    os.close(ours)
    assert process.returncode == 0, err
    assert "sk-typed" not in out + err
    assert get_secret(db, ws, "API_KEY") == "sk-typed"


# The keyring


@pytest.fixture
def kek(monkeypatch: pytest.MonkeyPatch) -> str:
    """The KEK that the environment gives to every command of the test."""
    kek = json.loads(succeed(CliRunner().invoke(app, ["keyring", "generate", "--json"])))["kek"]
    monkeypatch.setenv("RUNTIME_REGISTRY_KEK", kek)
    assert isinstance(kek, str)
    return kek


def test_a_generated_key_is_printed_alone() -> None:
    kek = succeed(CliRunner().invoke(app, ["keyring", "generate"]))
    assert keyring.Kek(kek).reveal() == kek.strip()


def test_encryption_from_the_first_key_to_a_new_kek(
    run: Run, ws: str, kek: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Key 1 is active" in succeed(run("keyring", "init"))
    assert run("keyring", "init").exit_code == Exit.CONFLICT
    done = json.loads(succeed(run("keyring", "reseal", "--json")))
    assert done == {"resealed": 2, "unreadable": 0}
    assert KIMI in succeed(run("show", ws))

    done = json.loads(succeed(run("keyring", "rotate", "--json")))
    assert done == {"key_id": 2, "resealed": 2, "unreadable": 0}
    rotated = succeed(run("keyring", "rotate", "--batch", "1")).splitlines()
    assert rotated[0].startswith("Key 3 is active")
    assert rotated[1:] == ["2 values are resealed."]
    assert run("keyring", "retire", "3").exit_code == Exit.CONFLICT
    for key_id in ("1", "2"):
        assert succeed(run("keyring", "retire", key_id)) == f"Key {key_id} is removed.\n"
    (entry,) = json.loads(succeed(run("keyring", "status", "--verify", "--json")))
    assert (entry["key_id"], entry["state"], entry["unreadable"]) == (3, "active", 0)
    assert "active" in succeed(run("keyring", "status"))

    new = tmp_path / "new"
    new.write_text(succeed(run("keyring", "generate")))
    assert run("keyring", "rewrap").exit_code == Exit.USAGE
    rewrapped = succeed(run("keyring", "rewrap", "--new-kek-file", str(new)))
    assert rewrapped == "Wrapped by the new key-encryption key: 1 keys.\n"
    assert run("show", ws).exit_code == Exit.SECRET
    for command in (["--kek-file", str(new), "show", ws], ["show", ws, "--kek-file", str(new)]):
        assert KIMI in succeed(run(*command))
    monkeypatch.setenv("RUNTIME_REGISTRY_NEW_KEK", kek)
    back = run("--kek-file", str(new), "keyring", "rewrap", "--json")
    assert json.loads(succeed(back)) == {"keys": 1}
    assert KIMI in succeed(run("show", ws))


@pytest.mark.parametrize("command", [["show", NOBODY], ["keyring", "rewrap"], ["psql"]])
def test_a_key_that_is_none_is_refused_without_repeating_it(
    run: Run, kek: str, tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = "RUNTIME_REGISTRY_NEW_KEK" if "rewrap" in command else "RUNTIME_REGISTRY_KEK"
    option = "--new-kek-file" if "rewrap" in command else "--kek-file"
    monkeypatch.setenv(variable, kek[:-1])
    result = run(*command)
    assert result.exit_code == Exit.INVALID_ARGUMENT
    assert variable in result.stderr
    file = tmp_path / "kek"
    file.write_text(kek[:-1])
    by_file = run(*command, option, str(file))
    assert by_file.exit_code == Exit.INVALID_ARGUMENT
    for text in (result.output, by_file.output):
        assert kek[:-1] not in text
    missing = run(*command, option, str(tmp_path / "none"))
    assert missing.exit_code == Exit.USAGE


def test_rotation_that_is_stopped_goes_on_where_it_was(
    run: Run, database: Database, db: psycopg.Connection[Any], ws: str, kek: str
) -> None:
    succeed(run("keyring", "init"))
    succeed(run("keyring", "reseal"))
    other = create_workspace_with(db, kek)
    holder = database.connect()
    holder.execute("select from workspace.workspaces where id = %s for update", [ws])
    with subprocess.Popen(
        [SCRIPT, "--database", database.dsn, "keyring", "rotate"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            moved = "select key_id = 2 from workspace.secrets where workspace_id = %s"
            while process.poll() is None and db.execute(moved, [other]).fetchall() != [(True,)]:
                pass
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, err) == (Exit.INTERRUPTED, "")
    holder.rollback()
    assert succeed(run("keyring", "reseal")) == "2 values are resealed.\n"


def create_workspace_with(db: psycopg.Connection[Any], kek: str) -> str:
    with keyring.transaction(db, keyring.Kek(kek)):
        return str(create_workspace(db, "other", "claude-code", model="opus").workspace_id)


def test_a_terminal_sees_the_progress(run: Run, database: Database, ws: str, kek: str) -> None:
    succeed(run("keyring", "init"))
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [SCRIPT, "--database", database.dsn, "keyring", "reseal"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        env=os.environ | {"TERM": "xterm"},
    ) as process:
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # Linux says so that nobody is left at the other end.
            while part := os.read(ours, 4096):
                seen += part
        out, _ = process.communicate()
    os.close(ours)
    assert (process.returncode, out) == (0, "2 values are resealed.\n")
    assert b"Sealing" in seen


def test_psql_has_the_key_too_and_not_as_an_argument(
    database: Database, kek: str, tmp_path: Path
) -> None:
    path = f"{database.server.bin('psql').parent}{os.pathsep}{os.environ['PATH']}"
    dsn = make_conninfo(database.dsn, options="-c statement_timeout=7s")
    query = "select current_setting('runtime_registry.kek'), current_setting('statement_timeout')"
    shown = script("--database", dsn, "psql", "-Atc", query, PATH=path)
    assert (shown.returncode, shown.stdout) == (0, f"{kek}|7s\n")
    by_variable = ["--database", database.dsn, "psql", "-Atc", query]
    shown = script(*by_variable, PATH=path, PGOPTIONS="-c statement_timeout=9s")
    assert shown.stdout == f"{kek}|9s\n"

    stand_in = tmp_path / "psql"
    stand_in.write_text('#!/bin/sh\necho "$@"\n')
    stand_in.chmod(0o755)
    called = script("--database", dsn, "psql", "-x", PATH=f"{tmp_path}{os.pathsep}{path}")
    assert called.stdout.endswith("-x\n")
    assert kek not in called.stdout


@pytest.mark.parametrize("command", [["doctor"], ["keyring", "doctor"]])
def test_doctor_looks_at_the_encryption(
    run: Run,
    ws: str,
    db: psycopg.Connection[Any],
    kek: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
) -> None:
    def found(*more: str) -> dict[str, tuple[str, str]]:
        result = run(*command, "--json", *more)
        assert kek not in result.output
        return diagnosis(result)

    assert found()["KEK"] == ("ok", "as it should be")
    succeed(run("keyring", "init"))
    status, finding = found()["secrets"]
    assert (status, finding[:45]) == ("warning", "1 are still stored plain, and 1 in the histor")
    succeed(run("keyring", "reseal"))
    assert found()["KEK"] == ("ok", "as it should be")
    assert found()["secrets"] == ("ok", "sealed")
    assert found()["pgcrypto"][0] == "ok"

    file = tmp_path / "kek"
    file.write_text(kek)
    for mode, verdict in ((0o600, "ok"), (0o400, "ok"), (0o640, "warning"), (0o604, "warning")):
        file.chmod(mode)
        assert found("--kek-file", str(file))["KEK file"][0] == verdict
    file.write_text(keyring.Kek.generate().reveal())
    wrong = found("--kek-file", str(file))
    assert wrong["KEK"] == ("problem", "the one given does not fit the keyring")
    assert wrong["secrets"] == ("ok", "sealed")
    monkeypatch.delenv("RUNTIME_REGISTRY_KEK")
    without = found()
    assert without["KEK"][0] == "warning"
    if command == ["doctor"]:
        assert "key-encryption key" in without["workspaces"][1]
    monkeypatch.setenv("RUNTIME_REGISTRY_KEK", kek)

    db.execute("update workspace.secrets set sealed = '\\x00'")
    status, finding = found()["secrets"]
    assert (status, finding[:16]) == ("problem", "1 cannot be read")
    db.execute(f"alter database {db.info.dbname} set runtime_registry.kek = '{kek}'")
    status, finding = found()["KEK"]
    assert status == "problem"
    assert "ALTER DATABASE" in finding


def test_keyring_doctor_makes_only_the_checks_of_the_encryption(run: Run) -> None:
    checks = diagnosis(run("keyring", "doctor", "--json"))
    assert set(checks) == {"server log", "schema", "pgcrypto", "KEK", "secrets"}


# psql and the embedded server


def test_psql_gets_the_arguments_and_gives_its_exit_code(database: Database) -> None:
    path = f"{database.server.bin('psql').parent}{os.pathsep}{os.environ['PATH']}"
    options = ["--database", database.dsn, "psql"]
    good = script(*options, "--", "-Atc", "select runtime from registry.list_runtimes()", PATH=path)
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.splitlines()[0] == "claude-code"
    assert script(*options, "-X", "-c", "select 1/0", PATH=path).returncode == 1
    missing = script(*options, PATH="/nonexistent")
    assert missing.returncode == Exit.UNEXPECTED
    assert missing.stderr.startswith("error: There is no psql on the PATH.")


def test_without_a_database_there_is_a_playground_that_lasts_and_leaves_no_server(
    home: Path,
) -> None:
    environment = {"RUNTIME_REGISTRY_HOME": str(home)}
    created = script("create", "mine", "--runtime", "hermes", "--json", **environment)
    assert created.returncode == 0, created.stderr
    assert "embedded Postgres" in created.stderr
    assert len(created.stderr.splitlines()) == 1
    ws = json.loads(created.stdout)["workspace_id"]
    assert not (home / "data" / "postmaster.pid").exists()

    refused = script("set-model", ws, "nonesuch", "--json", **environment)
    assert refused.returncode == Exit.REFUSED
    assert json.loads(refused.stderr)["code"] == "MODEL_NOT_REGISTERED"
    assert not (home / "data" / "postmaster.pid").exists()

    shown = script(
        "psql", "-Atc", f"select name from workspace.get_workspace('{ws}')", **environment
    )
    assert (shown.returncode, shown.stdout) == (0, "mine\n")
    assert not (home / "data" / "postmaster.pid").exists()


def test_an_embedded_server_that_cannot_start_is_said_in_a_sentence() -> None:
    done = script("runtimes", RUNTIME_REGISTRY_HOME="/dev/null/home")
    assert done.returncode == Exit.UNAVAILABLE
    assert "Traceback" not in done.stderr
    assert "/dev/null/home" in done.stderr


# The feed


def test_changes_are_listed_from_a_cursor_on(
    run: Run, ws: str, db: psycopg.Connection[Any]
) -> None:
    succeed(run("change", ws, "google-adk"))
    first, second = json.loads(succeed(run("changes", "--json")))
    assert list(first) == fields(db, "fleet.feed_entry")
    assert (first["workspace_id"], first["version"]) == (ws, 1)
    assert json.loads(succeed(run("changes", "--limit", "1", "--json"))) == [first]
    assert json.loads(succeed(run("changes", "--after", first["cursor"], "--json"))) == [second]
    assert json.loads(succeed(run("changes", "--after", "now", "--json"))) == []
    assert second["cursor"] in succeed(run("changes")).splitlines()[2]
    assert run("changes", "--after", "x").exit_code == Exit.INVALID_ARGUMENT


@pytest.mark.parametrize("as_json", [True, False], ids=["json", "text"])
def test_changes_are_followed_line_by_line(
    database: Database, ws: str, db: psycopg.Connection[Any], as_json: bool
) -> None:
    command = [SCRIPT, "--database", database.dsn, "changes", "--follow", *["--json"] * as_json]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as it:
        assert it.stdout
        first = it.stdout.readline()
        change_runtime(db, ws, "google-adk")
        second = it.stdout.readline()
        it.send_signal(signal.SIGINT)
        assert it.wait() == Exit.INTERRUPTED
    for version, line in enumerate([first, second], start=1):
        if as_json:
            assert (json.loads(line)["workspace_id"], json.loads(line)["version"]) == (ws, version)
        else:
            assert f"{ws}  {version}  " in line


def test_old_changes_are_pruned_in_batches(run: Run, ws: str, db: psycopg.Connection[Any]) -> None:
    for model in ("opus", KIMI) * 3:
        set_model(db, ws, model)
    assert succeed(run("fleet", "prune", "--before", "2020-01-01")) == "Pruned 0 changes.\n"
    prune = ("fleet", "prune", "--before", "9999-01-01T00:00+01:00", "--batch", "2", "--json")
    assert json.loads(succeed(run(*prune))) == {"pruned": 5}
    assert [entry.version for entry in history(db, ws)] == [1, 7]
    assert run("fleet", "prune", "--before", "yesterday").exit_code == Exit.USAGE
    assert run("fleet", "prune").exit_code == Exit.USAGE


# Moving a fleet


def table(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_a_fleet_is_moved_and_comes_back(run: Run, db: psycopg.Connection[Any], ws: str) -> None:
    for _ in range(3):
        create_workspace(db, "w", "claude-code")
    move = ("fleet", "move", "claude-code", "google-adk", "--batch", "2")
    summary = [["outcome", "why", "workspaces"], ["changed", "default", "1"]]
    summary += [["changed", "none", "3"]]
    *shown, note = succeed(run(*move, "--dry-run")).splitlines()
    assert table("\n".join(shown)) == summary
    assert note == "Nothing is changed, this is a dry run."
    assert get_workspace(db, ws).runtime == "claude-code"
    assert table(succeed(run(*move))) == summary
    assert get_workspace(db, ws).model == GEMINI
    assert succeed(run(*move)) == "Nothing to do.\n"

    back = ("fleet", "move", "google-adk", "claude-code", "--restore", "--request-id", "r")
    answer = json.loads(succeed(run(*back, "--json")))
    assert (answer["dry_run"], answer["outcomes"]) == (False, {"changed": 4})
    (entry,) = (each for each in answer["workspaces"] if each["workspace_id"] == ws)
    assert list(entry) == fields(db, "fleet.move_entry")
    assert (entry["model"], entry["model_source"]) == (KIMI, "restored")
    change_runtime(db, ws, "google-adk")
    assert table(succeed(run(*back))) == [summary[0], ["recorded", "restored", "1"]]


def test_who_is_left_behind_is_named_and_the_exit_code_says_so(
    run: Run, db: psycopg.Connection[Any], ws: str
) -> None:
    made = [
        str(create_workspace(db, "w", "claude-code", model=KIMI).workspace_id) for _ in "x" * 11
    ]
    create_workspace(db, "w", "claude-code")
    db.execute("update workspace.secrets set sealed = %s", [b"\xff\x00"])
    moved = run("fleet", "move", "claude-code", "hermes")
    assert moved.exit_code == Exit.CONFLICT
    assert "SECRET_UNREADABLE  12" in moved.stdout
    *named, more = [line for line in moved.stdout.splitlines() if line.startswith("!")]
    assert named == [
        f"! workspace {each} on claude-code is left as it is: SECRET_UNREADABLE"
        for each in sorted([ws, *made])[:10]
    ]
    assert more == "! and 2 more"
    answer = run("fleet", "move", "claude-code", "hermes", "--json")
    assert answer.exit_code == Exit.CONFLICT
    assert json.loads(answer.stdout)["outcomes"] == {"refused": 12}

    assert run("fleet", "move", "claude-code", "nope").exit_code == Exit.REFUSED
    assert run("fleet", "move", "claude-code", "hermes", "--batch", "0").exit_code == Exit.USAGE


def test_orphans_are_listed_and_reset(
    run: Run, db: psycopg.Connection[Any], ws: str, tmp_path: Path
) -> None:
    manifest = schema.default_manifest()
    (entry,) = (each for each in manifest["runtimes"] if each["name"] == "claude-code")
    entry["arms"] = [arm for arm in entry["arms"] if KIMI not in arm.get("models", [])]
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(manifest))
    succeed(run("load", str(path), "--on-orphan", "keep"))
    (listed,) = json.loads(succeed(run("fleet", "orphans", "--runtime", "claude-code", "--json")))
    assert list(listed) == fields(db, "fleet.orphan")
    assert (listed["workspace_id"], listed["model"], listed["problem"]) == (
        ws,
        KIMI,
        "not registered",
    )
    assert ws in succeed(run("fleet", "orphans"))
    assert len(json.loads(succeed(run("fleet", "orphans", "--runtime", "hermes", "--json")))) == 0

    reset = ("fleet", "reset", "--runtime", "claude-code")
    assert "dry run" in succeed(run(*reset, "--dry-run"))
    assert table(succeed(run(*reset)))[1:] == [["changed", "default", "1"]]
    assert get_workspace(db, ws).model == listed["reset_model"]
    assert succeed(run(*reset)) == "Nothing to do.\n"

    # Or at once.
    succeed(run("registry", "restore", "1"))
    set_model(db, ws, KIMI)
    loaded = succeed(run("load", str(path), "--on-orphan", "reset"))
    assert loaded.endswith("\nGiven another model, theirs is not registered any more: 1.\n")
    assert get_workspace(db, ws).model == listed["reset_model"]


# Tokens and the service


def test_a_token_is_printed_once_and_ends_when_it_is_revoked(
    run: Run, db: psycopg.Connection[Any]
) -> None:
    secret = succeed(run("token", "create", "deploy", "--role", "operator", "--days", "2")).strip()
    caller = authenticate(db, token_hash(secret))
    assert caller
    assert (caller.name, caller.role) == ("deploy", "operator")
    listed = succeed(run("token", "list"))
    assert "deploy" in listed
    assert secret not in listed
    (entry,) = json.loads(succeed(run("token", "list", "--json")))
    assert list(entry) == fields(db, "access.token")
    assert entry["expires_at"] > entry["created_at"]
    assert succeed(run("token", "revoke", "deploy")) == "Revoked.\n"
    assert authenticate(db, token_hash(secret)) is None
    assert json.loads(succeed(run("token", "revoke", "deploy", "--json")))["revoked_at"]


def test_a_token_for_one_workspace_and_its_refusals(
    run: Run, ws: str, db: psycopg.Connection[Any]
) -> None:
    create = ["token", "create", "assistant", "--role", "workspace"]
    made = json.loads(succeed(run(*create, "--workspace", ws, "--json")))
    assert list(made) == [*fields(db, "access.token"), "token"]
    caller = authenticate(db, token_hash(made["token"]))
    assert caller
    assert str(caller.workspace_id) == ws
    assert run(*create, "--workspace", ws).exit_code == Exit.CONFLICT
    assert run("token", "create", "b", "--role", "workspace").exit_code == Exit.INVALID_ARGUMENT
    assert run("token", "create", "b", "--role", "root").exit_code == Exit.USAGE
    assert run("token", "revoke", "nobody").exit_code == Exit.NOT_FOUND


def test_rename_tells_what_it_did(run: Run, ws: str, db: psycopg.Connection[Any]) -> None:
    renamed = json.loads(succeed(run("rename", ws, "other", "--json")))
    assert (renamed["version"], renamed["changed"]) == (2, True)
    assert get_workspace(db, ws).name == "other"


def test_a_setting_that_cannot_be_read_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_REGISTRY_HTTP_POOL_SIZE", "many")
    result = run("serve")
    assert result.exit_code == Exit.USAGE
    assert "RUNTIME_REGISTRY_HTTP_POOL_SIZE" in result.output


def test_serving_the_playground_prints_a_token_that_works(home: Path) -> None:
    environment = os.environ | {"RUNTIME_REGISTRY_HOME": str(home)}
    with subprocess.Popen(
        [SCRIPT, "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as service:
        try:
            assert service.stdout
            assert service.stderr
            token = service.stdout.readline().split()[-1]
            while "running on" not in (line := service.stderr.readline()):
                assert line, "the service ended"
            url = json.loads(line)["message"].split()[3]
            asked = urllib.request.Request(
                f"{url}/runtimes", headers={"Authorization": f"Bearer {token}"}
            )
            with urllib.request.urlopen(asked) as answer:
                assert len(json.load(answer)["items"]) == 9
        finally:
            service.terminate()
            service.communicate()
    assert service.returncode == 0
