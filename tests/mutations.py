"""Deliberate faults, one after the other, and the test that catches each: `make mutations`.

A fault is put into a copy of the project, and the test is run on that copy: there it has to fail,
and without any fault to pass. With names of tests (or parts of
them) as arguments, only what those catch is tried.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import figures
import servers

ROOT = Path(__file__).parents[1]
COPIED = ["sql", "pyapi", "alembic", "tests", "pyproject.toml"]


@dataclass(frozen=True, slots=True)
class Fault:
    """name: what is wrong. old, which is in the file once, becomes new. test: file::function."""

    name: str
    file: str
    old: str
    new: str
    test: str


FAULTS = [
    # Locks and snapshots
    Fault(
        "Calls do not hold the registry that they decide by",
        "sql/workspace/lock_workspace.sql",
        "lock table registry.state, keyring.keys in row share mode;",
        "lock table keyring.keys in row share mode;",
        "test_registry_races.py::test_a_load_judges_what_an_open_call_leaves",
    ),
    Fault(
        "A snapshot from before a load goes on deciding by the old registry",
        "sql/registry/hold.sql",
        "perform from registry.state as s for share;",
        "null;",
        "test_registry_races.py::test_a_call_decides_by_the_registry_that_an_open_load_leaves",
    ),
    Fault(
        "A load says what it changes of a registry that another load has replaced",
        "sql/fleet/replace_registry.sql",
        "if not exists (select from registry.state as s where s.revision = load.revision) then",
        "if false then",
        "test_registry_races.py::test_a_load_says_what_it_changes_of_what_an_open_load_leaves",
    ),
    Fault(
        "A load does not wait for those who decide by the registry",
        "sql/fleet/replace_registry.sql",
        "lock table registry.state in exclusive mode;",
        "",
        "test_registry_races.py::test_a_load_judges_what_an_open_call_leaves",
    ),
    Fault(
        "A load is let in with a snapshot that may hide what it has to judge",
        "sql/fleet/replace_registry.sql",
        "perform registry.require_read_committed();",
        "",
        "test_registry_races.py::test_a_load_needs_read_committed",
    ),
    Fault(
        "A workspace's row is read, but not locked",
        "sql/workspace/lock_workspace.sql",
        "where w.id = lock_workspace.ws\n  for no key update;",
        "where w.id = lock_workspace.ws;",
        "test_races.py::test_the_second_decides_on_what_the_first_left",
    ),
    Fault(
        "Locks in another order: the workspace before the registry",
        "sql/workspace/lock_workspace.sql",
        "lock table registry.state, keyring.keys in row share mode;",
        "perform from workspace.workspaces as w where w.id = lock_workspace.ws for no key update;\n"
        "    lock table registry.state, keyring.keys in row share mode;",
        "test_pairs.py::test_locks_are_taken_in_one_order",
    ),
    Fault(
        "Locks in another order: the keyring before the registry",
        "sql/workspace/lock_workspace.sql",
        "lock table registry.state, keyring.keys in row share mode;",
        "lock table keyring.keys, registry.state in row share mode;",
        "test_pairs.py::test_locks_are_taken_in_one_order",
    ),
    Fault(
        "A key is removed while somebody seals with it",
        "sql/workspace/hold.sql",
        "lock table registry.state, keyring.keys in row share mode;",
        "lock table registry.state in row share mode;",
        "test_keyring_races.py::test_a_key_that_only_an_uncommitted_secret_refers_to_is_not_removed",
    ),
    Fault(
        "A key is removed while what it sealed is copied into the history",
        "sql/workspace/lock_workspace.sql",
        "lock table registry.state, keyring.keys in row share mode;",
        "lock table registry.state in row share mode;",
        "test_keyring_races.py::"
        "test_a_key_is_not_removed_while_its_bytes_are_copied_into_the_history",
    ),
    Fault(
        "A snapshot from before a rotation goes on sealing with the old key",
        "sql/keyring/hold.sql",
        "perform from keyring.keys as k for share;",
        "null;",
        "test_keyring_races.py::test_who_seals_waits_for_a_rotation_and_then_takes_the_new_key",
    ),
    Fault(
        "A snapshot from before the first key goes on storing plain values",
        "sql/keyring/init.sql",
        "update registry.state as s set revision = s.revision;",
        "",
        "test_pairs.py::test_two_at_once_are_as_one_after_the_other",
    ),
    Fault(
        "A rotation without the lock",
        "sql/keyring/rotate.sql",
        "perform keyring.lock();",
        "",
        "test_keyring_races.py::test_who_changes_the_keys_waits_for_who_seals",
    ),
    Fault(
        "A rewrap without the lock",
        "sql/keyring/rewrap.sql",
        "perform keyring.lock();",
        "",
        "test_pairs.py::test_two_at_once_are_as_one_after_the_other",
    ),
    Fault(
        "Resealing waits for workspaces that somebody holds",
        "sql/workspace/reseal_workspace.sql",
        "for no key update skip locked;",
        "for no key update;",
        "test_keyring_races.py::test_reseal_does_not_wait_for_a_workspace_and_comes_back",
    ),
    Fault(
        "Two prunings at once",
        "sql/fleet/prune_changes.sql",
        "lock table fleet.retention in share row exclusive mode;",
        "",
        "test_pruning.py::test_two_at_once_take_turns_and_writers_go_on",
    ),
    # Versions and requests
    Fault(
        "change_runtime forgets to compare the version",
        "sql/workspace/change_runtime.sql",
        "if change_runtime.expected_version <> current.version then",
        "if false then",
        "test_workspaces.py::"
        "test_a_write_is_refused_at_another_version_and_done_at_the_expected_one",
    ),
    Fault(
        "set_secret forgets to compare the version",
        "sql/workspace/set_secret.sql",
        "if set_secret.expected_version <> current.version then",
        "if false then",
        "test_secrets.py::test_a_secret_can_be_written_for_an_expected_version_only",
    ),
    Fault(
        "rename_workspace forgets to compare the version",
        "sql/workspace/rename_workspace.sql",
        "if rename_workspace.expected_version <> current.version then",
        "if false then",
        "test_workspaces.py::"
        "test_a_write_is_refused_at_another_version_and_done_at_the_expected_one",
    ),
    Fault(
        "The version is compared before the request_id is looked up",
        "sql/workspace/change_runtime.sql",
        "if request is not null then\n    answer",
        "if change_runtime.expected_version <> current.version then\n"
        "    perform workspace.version_conflict(\n"
        "      current.workspace_id, current.version, change_runtime.expected_version\n"
        "    );\n"
        "  end if;\n"
        "  if request is not null then\n    answer",
        "test_request_ids.py::test_a_replay_may_expect_the_version_of_the_first_try",
    ),
    Fault(
        "A repeated request is done again",
        "sql/workspace/recorded_answer.sql",
        "if recorded_answer.request_id is null then",
        "if true then",
        "test_request_ids.py::test_a_replay_gets_the_first_answer_and_writes_nothing",
    ),
    Fault(
        "A request_id is answered though it was used for another model",
        "sql/workspace/recorded_answer.sql",
        "    or (case when recorded.model_source = 'requested' then answer.model end)"
        " is distinct from recorded_answer.model\n",
        "",
        "test_request_ids.py::test_a_request_id_is_good_for_one_request",
    ),
    Fault(
        "Two actors share the request_ids of create_workspace",
        "sql/workspace/create_workspace.sql",
        "workspace.actor() || E'\\n' || request",
        "request",
        "test_renaming.py::test_a_request_id_is_its_actors_own",
    ),
    Fault(
        "Nothing to do is not recorded for who may come back for the answer",
        "sql/workspace/write_change.sql",
        "if not answer.changed and write_change.request_id is null then",
        "if not answer.changed then",
        "test_request_ids.py::test_a_late_replay_does_not_undo_what_happened_in_between",
    ),
    # Decisions
    Fault(
        "The default is preferred to a model that could be kept",
        "sql/workspace/choose_model.sql",
        "\n\n    -- Orphaned.",
        "\n    routing := null;\n\n    -- Orphaned.",
        "test_decisions.py::test_a_switch_chooses",
    ),
    Fault(
        "The default is preferred to an equivalent",
        "sql/workspace/choose_model.sql",
        "and finding.has_equivalents is not false then",
        "and finding.default_model is null then",
        "test_decisions.py::test_a_switch_chooses",
    ),
    Fault(
        "A model is restored from another workspace's history",
        "sql/workspace/choose_model.sql",
        "where c.workspace_id = current.workspace_id\n        and c.runtime",
        "where c.runtime",
        "test_decisions.py::test_another_workspaces_history_is_not_restored",
    ),
    Fault(
        "An explicit model is not judged",
        "sql/workspace/choose_model.sql",
        "perform registry.refuse_model(choose_model.runtime);",
        "null;",
        "test_decisions.py::test_a_switch_is_refused",
    ),
    Fault(
        "Without any model to take, a switch goes through",
        "sql/workspace/choose_model.sql",
        "if chosen is null then\n        perform",
        "if false then\n        perform",
        "test_decisions.py::test_a_switch_is_refused",
    ),
    Fault(
        "An unreadable model is taken for none",
        "sql/workspace/choose_model.sql",
        "perform workspace.secret_unreadable(current.workspace_id);",
        "null;",
        "test_decisions.py::test_an_unreadable_model_blocks_whatever_needs_it",
    ),
    Fault(
        "Prefixes of another runtime's arms claim a model",
        "sql/registry/look_up.sql",
        "where c.runtime = r.name and c.case_folded",
        "where c.case_folded",
        "test_resolve.py::test_resolve",
    ),
    Fault(
        "Credentials do not decide between arms",
        "sql/registry/route.sql",
        "(candidate.is_open and candidate.open_arms = 1) desc, ",
        "",
        "test_resolve.py::test_resolve",
    ),
    Fault(
        "A longer prefix hides a shorter one of the same provider",
        "sql/registry/manifest.sql",
        "continue when claim.provider = owner and",
        "continue when false and",
        "test_resolve.py::test_random_registries_resolve_as_defined_and_overlap_is_refused",
    ),
    # What is written, and what is not
    Fault(
        "The history is written with the bytes from before the change",
        "sql/workspace/write_change.sql",
        "      model.sealed, model.key_id,\n",
        "      current.sealed, model.key_id,\n",
        "test_workspaces.py::test_every_write_adds_one_version_and_one_entry",
    ),
    Fault(
        "A model that stays is written anew",
        "sql/workspace/write_change.sql",
        "elsif decided.model_source = 'kept' or decided.model = current.model then",
        "elsif false then",
        "test_atomicity.py::test_a_model_that_stays_is_not_written",
    ),
    Fault(
        "A dry run writes",
        "sql/fleet/replace_registry.sql",
        "if replace_registry.dry_run then",
        "if false then",
        "test_registry_races.py::test_a_dry_run_changes_nothing_for_those_who_waited",
    ),
    Fault(
        "A load that orphans models is not refused",
        "sql/fleet/replace_registry.sql",
        "if replace_registry.on_orphan <> 'keep' then",
        "if false then",
        "test_load_registry.py::"
        "test_a_load_that_orphans_a_model_is_refused_and_a_dry_run_names_the_workspaces",
    ),
    Fault(
        "The model can be written as if it were any secret",
        "sql/workspace/secret_name.sql",
        "if upper(called) = 'MODEL' then",
        "if false then",
        "test_secrets.py::test_no_side_door_leads_to_the_model",
    ),
    Fault(
        "A rule of a table could print a secret",
        "sql/workspace/tables.sql",
        "constraint secrets_pkey primary key (workspace_id, key),",
        "constraint secrets_pkey primary key (workspace_id, key),\n"
        "  constraint secrets_are_short check (octet_length(sealed) < 2000000),",
        "test_catalog.py::test_no_check_can_print_a_secret",
    ),
    Fault(
        "A move waits for workspaces that somebody holds",
        "sql/fleet/change_batch.sql",
        "skip locked",
        "",
        "test_pairs.py::test_two_at_once_are_as_one_after_the_other",
    ),
    # The feed
    Fault(
        "A change stands in the feed before an older one of its workspace",
        "sql/workspace/lock_workspace.sql",
        "greatest((n.era << 45) + pg_current_xact_id()::text::bigint, last_position)",
        "(n.era << 45) + pg_current_xact_id()::text::bigint",
        "test_feed.py::test_an_old_transaction_that_gets_a_workspace_late_does_not_overtake",
    ),
    Fault(
        "The feed goes as far as the newest transaction, not the oldest",
        "sql/fleet/feed_end.sql",
        "pg_snapshot_xmin(",
        "pg_snapshot_xmax(",
        "test_feed.py::test_a_transaction_that_commits_late_is_not_skipped",
    ),
    Fault(
        "A workspace's last change is pruned",
        "sql/fleet/prune_changes.sql",
        "and later.version > c.version\n      )\n      -- What",
        "and later.version >= c.version\n      )\n      -- What",
        "test_pruning.py::test_of_a_deleted_workspace_the_ends_stay_and_its_id_stays_taken",
    ),
    Fault(
        "A change is pruned before the feed has given it out",
        "sql/fleet/prune_changes.sql",
        "      and c.position < feed_end\n",
        "",
        "test_pruning.py::test_what_the_feed_has_not_given_out_stays",
    ),
    Fault(
        "The answer to a request_id is pruned at once",
        "sql/fleet/prune_changes.sql",
        "and (c.request_id is null or c.changed_at < replayable_since)",
        "",
        "test_pruning.py::test_the_answer_to_a_request_id_stays_for_a_week",
    ),
    # Keys and sealed values
    Fault(
        "Values are stored plain though there is a key",
        "sql/keyring/pgcrypto.sql",
        "if with_key.key_id is null then",
        "if true then",
        "test_keyring.py::test_with_a_key_all_that_is_written_is_sealed",
    ),
    Fault(
        "Unsealing without the binding: bytes moved to another row open",
        "sql/keyring/pgcrypto.sql",
        "when starts_with(opened, open.label) and (",
        "when (",
        "test_keyring.py::test_bytes_of_something_else_do_not_open",
    ),
    Fault(
        "A message with bytes missing opens",
        "sql/keyring/pgcrypto.sql",
        " = octet_length(open.message) - 16\n",
        " >= octet_length(open.message) - 16\n",
        "test_keyring.py::test_no_bit_of_any_length_can_be_flipped",
    ),
    Fault(
        "A wrapped key opens as another key",
        "sql/keyring/wrap.sql",
        "keyring.open(unwrap.wrapped, unwrap.kek,"
        " format(E'runtime-registry key %s\\n', unwrap.key_id))",
        "split_part(keyring.open(unwrap.wrapped, unwrap.kek, 'runtime-registry '), E'\\n', 2)",
        "test_keyring.py::test_a_wrapped_key_opens_as_no_other_key",
    ),
    Fault(
        "A KEK that does not fit is taken for no encryption",
        "sql/keyring/open_key.sql",
        "if key.key_id is null and open_key.is_needed then",
        "if false then",
        "test_keyring.py::test_who_needs_a_secret_needs_the_kek",
    ),
    Fault(
        "A rotation wraps the new key with a KEK that does not fit",
        "sql/keyring/rotate.sql",
        "if opened.key_id is null then",
        "if false then",
        "test_keyring.py::test_who_needs_a_secret_needs_the_kek",
    ),
    Fault(
        "A rewrap leaves out the keys that it cannot open",
        "sql/keyring/rewrap.sql",
        "perform keyring.key_missing('does not fit this keyring');",
        "continue;",
        "test_keyring.py::test_a_rewrap_is_all_or_nothing",
    ),
    Fault(
        "A key is removed though something is sealed by it",
        "sql/keyring/retire.sql",
        "if state = 'active' or used > 0 then",
        "if state = 'active' then",
        "test_keyring.py::test_an_active_key_a_used_one_and_none_cannot_be_retired",
    ),
    # Rights
    Fault(
        "The functions of a schema stay granted to everybody",
        "sql/grants.sql",
        "in schema registry, keyring, access,",
        "in schema registry, keyring,",
        "test_privileges.py::test_public_was_granted_nothing",
    ),
    Fault(
        "Operators may load a registry",
        "sql/grants.sql",
        "  access.authenticate(bytea)\nto",
        "  access.authenticate(bytea), fleet.load_registry(jsonb, text, boolean)\nto",
        "test_privileges.py::test_the_roles_may_call_exactly_this",
    ),
    Fault(
        "A function finds what its caller puts in the way",
        "sql/workspace/change_runtime.sql",
        "set search_path = pg_catalog, pg_temp\n",
        "",
        "test_catalog.py::test_what_a_caller_puts_in_the_way_is_not_found",
    ),
    Fault(
        "An internal function has its owner's rights",
        "sql/workspace/write_change.sql",
        "language plpgsql\n",
        "language plpgsql\nsecurity definer\n",
        "test_catalog.py::test_exactly_what_is_granted_runs_with_its_owners_rights",
    ),
    Fault(
        "An argument becomes SQL",
        "sql/registry/clean_text.sql",
        "\nbegin\n",
        "\nbegin\n  execute 'select ''' || clean_text.value || '''';\n",
        "test_injection.py::test_no_text_is_taken_for_sql",
    ),
    Fault(
        "A token is known by its name",
        "sql/access/authenticate.sql",
        "where t.hash = authenticate.hash",
        "where t.name = convert_from(authenticate.hash, 'LATIN1')",
        "test_access.py::test_a_token_is_known_by_its_hash_and_kept_nowhere",
    ),
    Fault(
        "A revoked token lets in",
        "sql/access/authenticate.sql",
        "and t.revoked_at is null ",
        "",
        "test_access.py::test_a_revoked_token_is_nobodys_from_then_on_and_stays_on_record",
    ),
    Fault(
        "An expired token lets in",
        "sql/access/authenticate.sql",
        " and (t.expires_at is null or t.expires_at > moment);",
        ";",
        "test_access.py::test_an_expired_token_is_nobodys",
    ),
    # Python
    Fault(
        "A token for one workspace reaches the others",
        "pyapi/http/auth.py",
        "ws is not None and ws != caller.workspace_id",
        "False",
        "test_http.py::test_every_operation_lets_in_whom_it_should",
    ),
    Fault(
        "A call that may have been committed is called safe to repeat",
        "pyapi/errors.py",
        "    retry=None,\n",
        "    retry=True,\n",
        "test_connection_cuts.py::test_a_call_is_done_or_not_wherever_the_connection_is_cut",
    ),
]


@contextmanager
def copied() -> Iterator[Path]:
    """A copy of all that the tests need."""
    with tempfile.TemporaryDirectory(prefix="mutations-") as directory:
        for name in COPIED:
            source, target = ROOT / name, Path(directory, name)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        yield Path(directory)


@contextmanager
def put_in(fault: Fault, tree: Path) -> Iterator[None]:
    """Put a fault into a copy."""
    path = tree / fault.file
    right = path.read_text()
    assert right.count(fault.old) == 1, f"{fault.name}: {fault.file} has changed"
    path.write_text(right.replace(fault.old, fault.new))
    try:
        yield
    finally:
        path.write_text(right)


def outcome(tree: Path, tests: list[str], dsn: str) -> str:
    """Run tests until one fails: passed, failed, or error if they could not be run."""
    report = tree / "report.xml"
    report.unlink(missing_ok=True)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RUNTIME_REGISTRY_", "RELIABILITY_"))
    }
    done = subprocess.run(
        [
            *(sys.executable, "-B", "-m", "pytest", "-x", "-p", "no:cacheprovider"),
            f"--junitxml={report}",
            *(f"tests/{test}" for test in tests),
        ],
        cwd=tree,
        env=environment
        | {
            "PYTHONPATH": str(tree),  # before the place where the package is installed
            "RUNTIME_REGISTRY_TEST_SERVER": "dsn",
            "RUNTIME_REGISTRY_TEST_DSN": dsn,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    (tree / "output").write_text(done.stdout)
    suites = ElementTree.parse(report).findall("testsuite") if report.exists() else []
    if done.returncode not in (0, 1) or any(suite.attrib["errors"] != "0" for suite in suites):
        return "error"
    return "failed" if done.returncode else "passed"


def main() -> int:
    """Try all faults; the exit status."""
    servers.heed_signals()
    wanted = sys.argv[1:]
    tried = [fault for fault in FAULTS if not wanted or any(name in fault.test for name in wanted)]
    if not tried:
        sys.exit(f"No fault has a test with such a name: {' '.join(wanted)}")
    wrong = []
    with servers.start() as server, copied() as tree:
        print(server.header)
        began = time.monotonic()
        without = outcome(tree, list(dict.fromkeys(fault.test for fault in tried)), server.dsn)
        print(f"{without:8}{time.monotonic() - began:5.0f} s  all of these tests without a fault")
        if without != "passed":
            print((tree / "output").read_text())
            return 1
        for fault in tried:
            began = time.monotonic()
            with put_in(fault, tree):
                came = outcome(tree, [fault.test], server.dsn)
            print(
                f"{'caught' if came == 'failed' else came.upper():8}"
                f"{time.monotonic() - began:5.0f} s  {fault.name}: {fault.test}",
                flush=True,
            )
            if came != "failed":
                wrong.append(fault)
                print((tree / "output").read_text())
    print(f"{len(tried) - len(wrong)} of {len(tried)} faults were caught by their tests.")
    figures.record("deliberate faults", faults=len(tried), caught=len(tried) - len(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
