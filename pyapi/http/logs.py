"""The service's log: one JSON object a line, and no value that anybody sent or stored."""

from __future__ import annotations

import json
import logging
import traceback
from datetime import UTC, datetime
from typing import Any

import psycopg

logger = logging.getLogger("runtime_registry.http")


class JsonFormatter(logging.Formatter):
    """Formats a record as JSON; what is in its attribute `fields` becomes keys."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1]:
            line["exception"] = trace(record.exc_info[1])
        return json.dumps(line, default=str)


def trace(error: BaseException) -> list[str]:
    """Say what was raised and where, and why that was; not the messages, which may hold values."""
    lines = []
    link: BaseException | None = error
    while link is not None:
        sqlstate = link.sqlstate if isinstance(link, psycopg.Error) else None
        lines.append(type(link).__name__ + (f" {sqlstate}" if sqlstate else ""))
        lines += [
            f"  {frame.filename}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(link.__traceback__)
        ]
        link = link.__cause__
    return lines


# For uvicorn and, with it, for the whole process.
CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": JsonFormatter}},
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "json"},
    },
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {
        "runtime_registry": {"level": "INFO"},
        "uvicorn": {"level": "INFO"},
        # It repeats what the server said, which can hold values. We log its errors ourselves.
        "psycopg": {"level": "ERROR"},
        "psycopg.pool": {"level": "ERROR"},
    },
}
