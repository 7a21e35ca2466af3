"""What the exit code of `runtime-registry` says."""

from __future__ import annotations

from enum import IntEnum

from pyapi.errors import (
    DatabaseFailure,
    PermissionDenied,
    RegistryError,
    SchemaMissing,
    SchemaTooNew,
)


class Exit(IntEnum):
    """Exit codes that scripts may branch on; a code keeps its meaning between releases."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> Exit:
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    DONE = 0, "done"
    UNEXPECTED = 1, "an error nobody expected"
    USAGE = 2, "the command line is wrong"
    INVALID_ARGUMENT = 3, "an argument has a value that cannot be (400)"
    NOT_FOUND = 4, "there is no such workspace, secret, key or revision (404)"
    CONFLICT = 5, "something stands in the way: another version, what is in use (409)"
    REFUSED = 6, "refused: the runtime, model or manifest is not valid (422)"
    UNAVAILABLE = 7, "the database is unavailable or busy; trying again may help"
    SECRET = 8, "a model or secret cannot be read, or the key-encryption key is missing"
    UNHEALTHY = 9, "doctor found a problem"
    NOT_INSTALLED = 10, "Runtime Registry is not in the database, or not in this version"
    FORBIDDEN = 11, "the database role may not do this"
    INTERRUPTED = 130, "stopped by Ctrl-C"

    @classmethod
    def of(cls, error: RegistryError) -> Exit:
        """Return the exit code for a refusal or a failure."""
        match error:
            case PermissionDenied():
                return cls.FORBIDDEN
            case SchemaMissing() | SchemaTooNew():
                return cls.NOT_INSTALLED
            case DatabaseFailure():
                return cls.UNAVAILABLE if error.status == 503 else cls.UNEXPECTED
        return _BY_STATUS.get(error.status, cls.UNEXPECTED)


_BY_STATUS = {
    400: Exit.INVALID_ARGUMENT,
    404: Exit.NOT_FOUND,
    409: Exit.CONFLICT,
    422: Exit.REFUSED,
    500: Exit.SECRET,
}
