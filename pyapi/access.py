"""Who may call over HTTP. See `pyapi.workspace` for how a call behaves.

The database keeps the hash of a token and never sees the token. Whoever makes one does so here:

    secret = new_token()
    create_token(conn, "deploy", "operator", token_hash(secret))

and gives `secret` to the caller, who sends it as `Authorization: Bearer ...`.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Literal
from uuid import UUID

from .calls import Call, Row, Statement, columns, each, one, sync

Role = Literal["workspace", "operator", "admin"]


@dataclass(frozen=True, slots=True)
class Token:
    """A token as its keepers see it; nobody can see the token itself."""

    name: str
    """What it is called, and who the history of workspaces names."""
    role: Role
    workspace_id: UUID | None
    """The only workspace it is for, with the role `workspace`."""
    created_at: datetime
    expires_at: datetime | None
    """None: never."""
    last_used_at: datetime | None
    """To the minute; None: never."""
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose token it is, and what it is for."""

    name: str
    role: Role
    workspace_id: UUID | None


def new_token() -> str:
    """Make a token: 32 random bytes in 43 characters, after a mark that scanners can look for."""
    return f"rr_{secrets.token_urlsafe(32)}"


def token_hash(token: str) -> bytes:
    """Return what the database knows a token by."""
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


_CREATE_TOKEN = Statement(
    f"""
    select {columns(Token)} from access.create_token(
        name => %(name)s::text, role => %(role)s::text, hash => %(hash)s::bytea,
        workspace_id => %(workspace_id)s::uuid, expires_at => %(expires_at)s::timestamptz)
    """,
    one(Token),
)


def create_token_call(
    name: str,
    role: Role,
    hash: bytes,
    *,
    workspace_id: UUID | str | None = None,
    expires_at: datetime | None = None,
) -> Call[Token]:
    """Make a token known: from now on its bearer has this name and role.

    `hash` is the `token_hash` of a `new_token()`. `workspace_id` is for the role `workspace`, and
    needed there. Without `expires_at` it never expires.

    Raises: InvalidArgument, TokenExists.
    """
    return Call(
        _CREATE_TOKEN,
        {
            "name": name,
            "role": role,
            "hash": hash,
            "workspace_id": workspace_id,
            "expires_at": expires_at,
        },
    )


_REVOKE_TOKEN = Statement(
    f"select {columns(Token)} from access.revoke_token(name => %(name)s::text)", one(Token)
)


def revoke_token_call(name: str) -> Call[Token]:
    """End a token, from its next use on.

    Raises: InvalidArgument, TokenNotFound.
    """
    return Call(_REVOKE_TOKEN, {"name": name})


_LIST_TOKENS = Statement(
    f"select {columns(Token)} from access.list_tokens()", each(Token), reads_only=True
)


def list_tokens_call() -> Call[list[Token]]:
    """List every token that was ever made, oldest first."""
    return Call(_LIST_TOKENS, {})


def _caller(rows: list[Row]) -> Caller | None:
    return Caller(*rows[0]) if rows else None


# It notes the use, which does no harm twice.
_AUTHENTICATE = Statement(
    f"select {columns(Caller)} from access.authenticate(hash => %(hash)s::bytea)",
    _caller,
    reads_only=True,
)


def authenticate_call(hash: bytes) -> Call[Caller | None]:
    """Tell whose token has this hash; None if it is nobody's, expired or revoked.

    Call it in a transaction of its own, so that the use is on record even if what follows is
    refused.
    """
    return Call(_AUTHENTICATE, {"hash": hash})


create_token = sync(create_token_call)
revoke_token = sync(revoke_token_call)
list_tokens = sync(list_tokens_call)
authenticate = sync(authenticate_call)
