"""The suite on every supported major version of Postgres, as many at once as there are cores.

Prints a table at the end, and the whole output of what failed. With --if-available, a version that
this machine cannot have (no package, or its libraries are missing) is no failure, but in the table.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from servers import CACHE, ServerError, heed_signals, installation

MAJORS = (15, 16, 17, 18)


@dataclass(frozen=True, slots=True)
class Run:
    """How the suite ended on a version; passed: None if it could not run."""

    version: str
    passed: bool | None
    summary: str
    output: str


def run(major: int) -> Run:
    """Run the suite on one version."""
    try:
        version = installation(major).version
    except ServerError as error:
        return Run(str(major), None, f"NOT RUN: {error}", "")
    choice = {
        "RUNTIME_REGISTRY_TEST_SERVER": "embedded",
        "RUNTIME_REGISTRY_TEST_POSTGRES": str(major),
    }
    log = CACHE / f"matrix-{major}.log"
    print(f"Postgres {version}: {log.relative_to(CACHE.parent)}", flush=True)
    with log.open("w") as output:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"],
            env=os.environ | choice,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    text = log.read_text()
    summary = (text.splitlines() or [""])[-1].strip("= ")
    print(f"Postgres {version}: {summary}", flush=True)
    return Run(version, done.returncode == 0, summary, text)


def main() -> int:
    """Run the matrix; the exit status."""
    heed_signals()
    CACHE.mkdir(exist_ok=True)
    with ThreadPoolExecutor(min(len(MAJORS), os.cpu_count() or 1)) as executor:
        try:
            runs = list(executor.map(run, MAJORS))
        except KeyboardInterrupt:  # those that run have had the signal too, and end by themselves
            executor.shutdown(cancel_futures=True)
            raise
    for one in runs:
        if one.passed is False:
            print(f"\n--- Postgres {one.version} ---\n{one.output}")
    print("\nPostgres  tests")
    for one in runs:
        print(f"{one.version:<9} {one.summary}")
    accepted = (True, None) if "--if-available" in sys.argv[1:] else (True,)
    return int(not all(one.passed in accepted for one in runs))


if __name__ == "__main__":
    sys.exit(main())
