"""Running the app: one process, until it is told to stop."""

from __future__ import annotations

import signal
import sys

import uvicorn

from .app import app_factory
from .logs import CONFIG
from .settings import Settings

GRACE_SECONDS = 20


def serve(settings: Settings, *, host: str, port: int, proxies: str = "127.0.0.1") -> None:
    """Serve until SIGTERM or SIGINT; what was begun by then is finished.

    `proxies` are the addresses whose X-Forwarded-* headers are believed.
    """
    # uvicorn ends by raising the signal again, which would leave no time to clean up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    uvicorn.run(
        app_factory(settings),
        host=host,
        port=port,
        log_config=CONFIG,
        access_log=False,
        server_header=False,
        forwarded_allow_ips=proxies,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
