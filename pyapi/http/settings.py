"""What an operator can set, each by a variable of the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from ..keyring import Kek

_PREFIX = "RUNTIME_REGISTRY_HTTP_"


@dataclass(frozen=True, slots=True)
class Settings:
    """The service's settings; `pool_size` is set by RUNTIME_REGISTRY_HTTP_POOL_SIZE, and so on."""

    database: str = ""
    """Conninfo; DATABASE_URL is read too, and what it leaves open is libpq's."""
    pool_size: int = 10
    """Connections at most. More requests than that wait."""
    pool_timeout: float = 3.0
    """Seconds to wait for a connection; then 503."""
    lock_timeout: str = "3s"
    """How long a statement waits for a lock; then 503. A Postgres duration."""
    statement_timeout: str = "10s"
    """How long a statement may run; then 503."""
    require_if_match: bool = False
    """Whether changing a workspace needs If-Match; without it 428."""
    max_body: int = 16384
    """Bytes of a request's body; more is 413."""
    kek: Kek | None = None
    """The key-encryption key of a database whose secrets are sealed; RUNTIME_REGISTRY_KEK."""
    new_kek: Kek | None = None
    """While it is being changed, the next one; RUNTIME_REGISTRY_NEW_KEK."""
    docs: bool = True
    """Whether /docs and /openapi.json are there, which anybody may read."""

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] = os.environ, **overrides: Any
    ) -> Self:
        """Read the variables; `overrides` that are not None win over them.

        Raises ValueError or InvalidArgument, which name the variable.
        """
        found: dict[str, Any] = {"database": environment.get("DATABASE_URL", "")}
        for name, variable in _KEKS.items():
            if text := environment.get(variable):
                found[name] = Kek(text, variable)
        for field in fields(cls):
            variable = _PREFIX + field.name.upper()
            if field.name not in _KEKS and (text := environment.get(variable)):
                try:
                    found[field.name] = _READ[str(field.type)](text)
                except (KeyError, ValueError):
                    raise ValueError(f"{variable} is not a {field.type}") from None
        return cls(**found | {key: value for key, value in overrides.items() if value is not None})


_KEKS = {"kek": "RUNTIME_REGISTRY_KEK", "new_kek": "RUNTIME_REGISTRY_NEW_KEK"}
_TRUTH = {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}
_READ: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": lambda text: _TRUTH[text.lower()],
}
