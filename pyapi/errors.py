"""Every error the package raises, and the one place that makes them of psycopg's.

What the database refuses is told apart by SQLSTATE and by `code` in DETAIL, never by psycopg's
exception class (an SQLSTATE it does not know gets a different one) or by message text (which is
translated, and may hold data).

    RegistryError            a refusal of ours: SQLSTATE PTnnn, one subclass for each code
      DatabaseFailure        a failure that is not ours; says whether the call is safe to retry
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any, ClassVar
from uuid import UUID

import psycopg


class RegistryError(Exception):
    """A call was refused, or failed (`DatabaseFailure`).

    A refusal wrote nothing. Like every error in Postgres it fails the transaction it happens in.
    It is raised from psycopg's error, which stays as `__cause__`. The attributes that a subclass
    declares are the fields of DETAIL that its code carries, and all that `pyapi.responses` shows.
    """

    status: int
    """The HTTP status that fits."""
    code: str
    """What happened; programs branch on this."""
    message: str
    """One sentence."""
    hint: str | None
    """What to do next."""
    detail: dict[str, Any]
    """DETAIL as it was sent; with the model that the caller sent if that is what was refused."""

    fields: ClassVar[tuple[str, ...]] = ()
    """The names of the attributes that come from DETAIL."""
    _by_code: ClassVar[dict[str, type[RegistryError]]] = {}

    def __init_subclass__(cls, code: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = (name for name in inspect.get_annotations(cls) if not name.startswith("_"))
        cls.fields = (*cls.fields, *own)
        if code:
            cls._by_code[code] = cls

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        hint: str | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        # All of it goes into args, so that copies and pickles are complete.
        super().__init__(status, code, message, hint, detail)
        self.status, self.code, self.message, self.hint = status, code, message, hint
        self.detail = dict(detail or {})
        for name in self.fields:
            setattr(self, name, self.detail.get(name))
        if hint:
            self.add_note(hint)  # shown below the message in a traceback

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.status}, {self.code!r}, {self.message!r})"


class InvalidArgument(RegistryError, code="INVALID_ARGUMENT"):
    """An argument is null, blank, too long, has control characters or is not of its type."""

    argument: str | None
    """Its name; None if it is not known which one."""
    problem: str

    @classmethod
    def make(cls, argument: str | None, problem: str) -> InvalidArgument:
        """Make the error as the database would."""
        code, subject = (
            "INVALID_ARGUMENT",
            f"The argument {argument}" if argument else "An argument",
        )
        hint = "Correct the argument and call again. Nothing was changed."
        detail = {"code": code, "argument": argument, "problem": problem}
        return cls(400, code, f"{subject} {problem}.", hint, detail)


class IsolationUnsupported(RegistryError, code="ISOLATION_UNSUPPORTED"):
    """The function needs a READ COMMITTED transaction."""

    isolation: str


class WorkspaceNotFound(RegistryError, code="WORKSPACE_NOT_FOUND"):
    """There is no workspace with this id."""

    workspace_id: str


class WorkspaceExists(RegistryError, code="WORKSPACE_EXISTS"):
    """There is a workspace with this id already."""

    workspace_id: str


class SecretNotFound(RegistryError, code="SECRET_NOT_FOUND"):
    """The workspace has no secret of this name."""

    workspace_id: str
    secret: str


class RevisionNotFound(RegistryError, code="REVISION_NOT_FOUND"):
    """The registry has no revision of this number."""

    revision: int


class TokenNotFound(RegistryError, code="TOKEN_NOT_FOUND"):
    """There is no access token of this name."""

    name: str


class TokenExists(RegistryError, code="TOKEN_EXISTS"):
    """There is an access token of this name already, perhaps a revoked one."""

    name: str


class VersionConflict(RegistryError, code="VERSION_CONFLICT"):
    """The workspace has changed: it is not at the version the caller expects."""

    workspace_id: str
    expected_version: int
    version: int


class RequestIdReused(RegistryError, code="REQUEST_ID_REUSED"):
    """The request id was used for a different request to this workspace."""

    workspace_id: str


class RuntimeUnsupported(RegistryError, code="RUNTIME_UNSUPPORTED"):
    """The registry does not know the runtime."""

    runtime: str
    valid_runtimes: list[str]


class ModelNotRegistered(RegistryError, code="MODEL_NOT_REGISTERED"):
    """The model that was asked for is not registered for the runtime."""

    runtime: str
    model: str | None
    """What the caller sent; the database never repeats a model."""
    valid_models: list[str]
    """The first 50, in menu order."""
    valid_models_total: int


class NoDefaultModel(RegistryError, code="NO_DEFAULT_MODEL"):
    """The workspace's model is not registered for the runtime, which has no default either."""

    runtime: str
    valid_models: list[str]
    valid_models_total: int


class RegistryUnavailable(RegistryError, code="REGISTRY_UNAVAILABLE"):
    """No registry is loaded."""


class RegistryInvalid(RegistryError, code="REGISTRY_INVALID"):
    """The manifest has problems; all are listed with their paths."""

    problems: list[dict[str, str]]
    problems_total: int


class RuntimeInUse(RegistryError, code="RUNTIME_IN_USE"):
    """The manifest lacks a runtime that workspaces have."""

    runtimes: list[dict[str, Any]]


class RegistryOrphans(RegistryError, code="REGISTRY_ORPHANS"):
    """With this manifest, workspaces would have models not registered for their runtimes."""

    orphans: list[dict[str, str]]
    orphans_total: int


class SecretUnreadable(RegistryError, code="SECRET_UNREADABLE"):
    """A stored model or secret cannot be unsealed."""

    workspace_id: str
    secret: str | None
    """The secret's name; None for the model."""


class EncryptionKeyMissing(RegistryError, code="ENCRYPTION_KEY_MISSING"):
    """Secrets are sealed and the session has no key-encryption key, or one that does not fit."""


class SecretsSealed(RegistryError, code="SECRETS_SEALED"):
    """The revision to go back to cannot open sealed secrets."""

    secrets: int


class KeyringExists(RegistryError, code="KEYRING_EXISTS"):
    """The keyring has keys already."""


class KeyringEmpty(RegistryError, code="KEYRING_EMPTY"):
    """The keyring has no key."""


class KeyNotFound(RegistryError, code="KEY_NOT_FOUND"):
    """The keyring has no key with this id."""

    key_id: int


class KeyInUse(RegistryError, code="KEY_IN_USE"):
    """The key is the active one, or something is sealed by it."""

    key_id: int
    state: str
    values: int


class DatabaseUnsupported(RegistryError, code="DATABASE_UNSUPPORTED"):
    """The server is too old, the database is not in UTF8, or its schema `registry` is not ours."""


class WorkspacesExist(RegistryError, code="WORKSPACES_EXIST"):
    """Uninstalling would destroy workspaces."""

    workspaces: int


class DatabaseFailure(RegistryError):
    """The database failed for a reason that is not ours."""

    # The first line of a docstring here is the message. What the server said may hold data; it is
    # in __cause__ only.

    safe_to_retry: bool
    """The same call, or the transaction it was part of, may be sent again as it is: it cannot take
    effect twice, and it can succeed without anybody repairing something first. Where the connection
    is gone, over a new one."""
    sqlstate: str | None
    """The server's code; None if the failure was noticed on this side."""

    _by_sqlstate: ClassVar[dict[str, type[DatabaseFailure]]] = {}
    _made_of: ClassVar[tuple[int, str, bool | None, str | None]]

    def __init_subclass__(
        cls,
        failure: str = "",
        sqlstates: str = "",
        status: int = 503,
        retry: bool | None = False,
        hint: str | None = None,
    ) -> None:
        """Register a kind of failure.

        `sqlstates` are codes or whole classes of codes (two characters). `retry` is
        `safe_to_retry`; None: it depends on whether the call can have been committed.
        """
        super().__init_subclass__()
        cls._made_of = status, failure, retry, hint
        cls._by_sqlstate.update(dict.fromkeys(sqlstates.split(), cls))

    @classmethod
    def make(cls, sqlstate: str | None = None, *, harmless: bool = False) -> DatabaseFailure:
        """Make the error; `harmless`: the call was not committed, or to repeat it does no harm."""
        status, code, retry, hint = cls._made_of
        message = (cls.__doc__ or code).partition("\n")[0]
        safe = harmless if retry is None else retry
        detail = {"safe_to_retry": safe, "sqlstate": sqlstate}
        return cls(status, code, message, hint, detail)


DatabaseFailure._made_of = 500, "DATABASE_FAILURE", False, None


class ConnectionLost(
    DatabaseFailure,
    failure="CONNECTION_LOST",
    sqlstates="08 25P03 25P04 40003 57P01 57P02 57P03 57P04 57P05",
    retry=None,
):
    """The connection to the database could not be made or was lost."""


class Deadlock(DatabaseFailure, failure="DEADLOCK", sqlstates="40P01", retry=True):
    """The database ended a deadlock by failing this transaction."""


class SerializationFailure(
    DatabaseFailure, failure="SERIALIZATION_FAILURE", sqlstates="40", retry=True
):
    """The transaction's snapshot is too old to go on with."""


class LockTimeout(DatabaseFailure, failure="LOCK_TIMEOUT", sqlstates="55P03", retry=True):
    """A lock was not to be had within lock_timeout."""


class StatementTimeout(DatabaseFailure, failure="STATEMENT_TIMEOUT", sqlstates="57014", retry=True):
    """The call was cancelled, by statement_timeout or by someone."""


class TooManyConnections(
    DatabaseFailure, failure="TOO_MANY_CONNECTIONS", sqlstates="53300", retry=True
):
    """The database has no connection left."""


class OutOfResources(DatabaseFailure, failure="OUT_OF_RESOURCES", sqlstates="53"):
    """The database ran out of disk space or memory."""


class ReadOnlyDatabase(
    DatabaseFailure,
    failure="READ_ONLY_DATABASE",
    sqlstates="25006",
    hint="Call the primary server, in a transaction that may write.",
):
    """The database or the transaction is read-only."""


class PermissionDenied(
    DatabaseFailure,
    failure="PERMISSION_DENIED",
    sqlstates="42501",
    status=403,
    hint="Grant it runtime_registry_reader, runtime_registry_operator or runtime_registry_admin.",
):
    """The database role may not do this."""


class SchemaMissing(
    DatabaseFailure,
    failure="SCHEMA_MISSING",
    sqlstates="3F000 42883 42P01 42703 42704",
    hint="Run `runtime-registry migrate` on the database.",
):
    """Runtime Registry is not installed in the database, or an older release of it is."""


class SchemaTooNew(
    DatabaseFailure,
    failure="SCHEMA_TOO_NEW",
    hint="Use the release that migrated the database, or a newer one.",
):
    """The database stands at a revision that this release does not know."""


class DependentObjects(
    DatabaseFailure,
    failure="DEPENDENT_OBJECTS",
    sqlstates="2BP01",
    status=500,
    hint="Drop it first: the server's message, in __cause__, names it.",
):
    """Something else in the database depends on what would be dropped."""


class FailedTransaction(
    DatabaseFailure,
    failure="FAILED_TRANSACTION",
    sqlstates="25P02",
    status=500,
    hint="Roll back. To go on after a refusal, wrap each call in `with conn.transaction():`.",
):
    """An earlier statement failed and the transaction was not rolled back."""


class PreparedStatementLost(
    DatabaseFailure,
    failure="PREPARED_STATEMENT_LOST",
    sqlstates="26000 42P05",
    status=500,
    hint="Behind a transaction pooler, connect with prepare_threshold=None.",
):
    """A prepared statement is not there or is there twice: the connection changed servers."""


# What a value can provoke on its way into its type: bad text, out of range, no such cast, too big.
_BAD_VALUE = frozenset(
    (
        *("22001", "22003", "22007", "22008", "22021", "22023", "22P02", "22P03", "22P05"),
        *("42804", "42846", "54000", "54001"),
    )
)


def translate(
    error: psycopg.Error | UnicodeError,
    *,
    params: Mapping[str, Any] | None = None,
    lost: bool = False,
    harmless: bool = False,
) -> RegistryError:
    """Make a `RegistryError` of what psycopg raised, to be raised from it.

    The package's functions do so themselves; call it for what your own `commit()` raises.

    `params` are the call's own. `lost` says that the connection is known to be closed; `harmless`
    that the call cannot have been committed, or that to repeat it does no harm.
    """
    sqlstate = getattr(error, "sqlstate", None)
    if sqlstate is None:
        return _of_this_side(error, params or {}, lost, harmless)
    assert isinstance(error, psycopg.Error)
    if sqlstate.startswith("PT") and sqlstate[2:].isdecimal():
        return _refusal(error.diag, int(sqlstate[2:]), params or {})
    if sqlstate in _BAD_VALUE:
        return _bad_value(params or {})
    kinds = DatabaseFailure._by_sqlstate
    kind = kinds.get(sqlstate) or kinds.get(sqlstate[:2]) or DatabaseFailure
    return kind.make(sqlstate, harmless=harmless)


def _refusal(
    diag: psycopg.errors.Diagnostic, status: int, params: Mapping[str, Any]
) -> RegistryError:
    try:
        detail = json.loads(diag.message_detail or "")
    except ValueError:
        detail = None
    if not isinstance(detail, dict):
        detail = {}
    code = str(detail.get("code", "UNKNOWN"))
    kind = RegistryError._by_code.get(code, RegistryError)
    if kind is ModelNotRegistered:
        detail["model"] = params.get("model")
    return kind(status, code, diag.message_primary or code, diag.message_hint, detail)


def _of_this_side(
    error: Exception, params: Mapping[str, Any], lost: bool, harmless: bool
) -> RegistryError:
    # No SQLSTATE: the server never saw the call or did not answer it. Only the class can tell what
    # happened. (psycopg may find the socket hung up while libpq has the connection open yet.)
    if isinstance(error, psycopg.errors.PipelineAborted) and not lost:
        return FailedTransaction.make()
    if isinstance(error, psycopg.OperationalError) or lost:
        return ConnectionLost.make(harmless=harmless)
    if isinstance(error, (UnicodeError, psycopg.DataError, psycopg.ProgrammingError)):
        return _bad_value(params)
    return DatabaseFailure.make()


def _bad_value(params: Mapping[str, Any]) -> InvalidArgument:
    for name, value in params.items():
        if problem := _problem(name, value):
            return InvalidArgument.make(name, problem)
    return InvalidArgument.make(None, "is not a value of its type")


def _problem(name: str, value: object) -> str | None:
    """Tell what Postgres cannot take in a value; its own message may not be repeated."""
    if not isinstance(value, str):
        return None
    if "\0" in value:
        return "has a control character"
    try:
        value.encode()
        if name in {"ws", "id"}:
            UUID(value)
    except UnicodeEncodeError:
        return "is not valid Unicode"
    except ValueError:
        return "is not a UUID"
    return None
