"""Reading a request's body: one JSON object with the right keys, or a refusal."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from starlette.requests import ClientDisconnect, Request

from .problems import Refused

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Field:
    """A key of a body. Null is a wrong type: nothing is ever cleared by it."""

    kind: Literal["string", "boolean", "uuid"]
    about: str
    required: bool = False
    needs: str | None = None
    """Another key that has to be there too."""

    def problem(self, value: object) -> str | None:
        """Tell what is wrong with a value, without repeating it."""
        if self.kind == "boolean":
            return None if isinstance(value, bool) else "is not a boolean"
        if not isinstance(value, str):
            return "is not a string"
        if self.kind == "uuid" and not UUID.fullmatch(value):
            return "is not a UUID"
        return None

    def schema(self) -> dict[str, Any]:
        """Return its JSON Schema."""
        if self.kind == "boolean":
            return {"type": "boolean", "description": self.about}
        form = {"format": "uuid"} if self.kind == "uuid" else {"minLength": 1}
        return {"type": "string", "description": self.about, **form}


@dataclass(frozen=True, slots=True)
class Body:
    """The body that an operation takes. At least one key has to be there."""

    fields: Mapping[str, Field]
    example: Mapping[str, Any]

    def problems(self, found: Mapping[str, Any]) -> list[dict[str, str]]:
        """List what is wrong with an object, all of it, by JSON pointers."""
        wrong = {name: "is not a key of this request" for name in found if name not in self.fields}
        for name, field in self.fields.items():
            if name not in found:
                if field.required:
                    wrong[name] = "is missing"
            elif problem := field.problem(found[name]):
                wrong[name] = problem
            elif field.needs and field.needs not in found:
                wrong[name] = f"is of use only with {field.needs}"
        if not found and not wrong:
            return [{"path": "", "problem": "has none of the keys " + ", ".join(self.fields)}]
        return [
            {"path": "/" + name.replace("~", "~0").replace("/", "~1"), "problem": problem}
            for name, problem in wrong.items()
        ]

    def schema(self) -> dict[str, Any]:
        """Return its JSON Schema."""
        required = [name for name, field in self.fields.items() if field.required]
        needs = {name: [field.needs] for name, field in self.fields.items() if field.needs}
        return {
            "type": "object",
            "properties": {name: field.schema() for name, field in self.fields.items()},
            "additionalProperties": False,
            **({"required": required} if required else {"minProperties": 1}),
            **({"dependentRequired": needs} if needs else {}),
        }

    async def read(self, request: Request, limit: int) -> dict[str, Any]:
        """Read and check it. Raises Refused with 400, 413, 415 or 422."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" or "content-encoding" in request.headers:
            raise Refused(
                415, "UNSUPPORTED_MEDIA_TYPE", "The body has to be application/json, uncompressed."
            )
        found = _object(await _bytes(request, limit))
        if problems := self.problems(found):
            raise Refused(
                422, "INVALID_BODY", "The body is not what this request takes.", problems=problems
            )
        return found


async def _bytes(request: Request, limit: int) -> bytes:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        _too_large(limit)
    read = bytearray()
    try:
        async for chunk in request.stream():
            read += chunk
            if len(read) > limit:
                _too_large(limit)
    except ClientDisconnect:
        _malformed("ended early")
    return bytes(read)


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(
            text.decode(), object_pairs_hook=_without_twins, parse_constant=_no_constant
        )
    except _Twins:
        _malformed("has a key twice")
    except UnicodeEncodeError:
        _malformed("has a key that is not valid Unicode")
    except (ValueError, RecursionError):
        _malformed("is not JSON")
    if not isinstance(found, dict):
        _malformed("is not an object")
    return found


class _Twins(Exception):
    pass


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise _Twins
    "".join(found).encode()  # a key that is not known is named in the answer
    return found


def _no_constant(_: str) -> NoReturn:
    raise ValueError


def _malformed(problem: str) -> NoReturn:
    raise Refused(400, "MALFORMED_BODY", f"The body {problem}.")


def _too_large(limit: int) -> NoReturn:
    raise Refused(413, "BODY_TOO_LARGE", f"The body has more than {limit} bytes.", headers=CLOSE)


# What was not read would have to be, before the connection could serve another request.
CLOSE = {"Connection": "close"}
