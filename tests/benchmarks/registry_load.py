"""How long loading a large registry takes, how much memory, and what a call costs afterwards.

    python tests/benchmarks/registry_load.py            # generated: 100 and 100,000 models
    python tests/benchmarks/registry_load.py FILE       # and a public list of models

FILE is an object with an entry for each model id, whose `litellm_provider` serves it and whose
`deprecation_date`, if any, is when it is deprecated: model_prices_and_context_window_backup.json in
the package litellm. It runs on the server the tests would take; memory is read from /proc.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import databases
import servers
from databases import Database
from support import Json, call, create, load, manifest, one, provider, runtime

CALLS = 2000
SWITCHES = """
do $$
begin
  for i in 1 .. %d loop
    perform workspace.change_runtime('%s', case when i %% 2 = 1 then 'home' else 'away' end);
  end loop;
end
$$
"""
HOME, AWAY = runtime("home", ("here", ["here/a"])), runtime("away", ("there", ["there/b"]))


def generated(models: int) -> Json:
    """Ten runtimes, each with five arms, that have so many models together."""
    providers = [provider(f"p{number}", model_prefixes=[f"p{number}:"]) for number in range(5)]
    runtimes = [
        runtime(
            f"r{number}",
            *(
                (each["name"], [f"{each['name']}/vendor/{number}-{i}" for i in range(models // 50)])
                for each in providers
            ),
        )
        for number in range(10)
    ]
    return manifest(providers, runtimes)


def converted(prices: dict[str, Json]) -> Json:
    """One runtime with all the models of a public list, by who serves them."""
    prices = {id: entry for id, entry in prices.items() if "litellm_provider" in entry}
    served: dict[str, list[str]] = {}
    for id, entry in prices.items():
        served.setdefault(entry["litellm_provider"], []).append(id)
    ends = {
        id: entry["deprecation_date"]
        for id, entry in prices.items()
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", entry.get("deprecation_date", ""))
    }
    return manifest(
        [provider(name) for name in served],
        [runtime("everything", *served.items())],
        deprecations=[{"model": id, "deprecated_at": date} for id, date in ends.items()],
    )


def measure(database: Database, name: str, content: Json) -> None:
    content = {
        **content,
        "providers": [*content["providers"], provider("here"), provider("there")],
        "runtimes": [*content["runtimes"], HOME, AWAY],
    }
    models = sum(len(arm["models"]) for each in content["runtimes"] for arm in each["arms"])
    print(f"{name}: {models} models, {len(json.dumps(content)) // 1024} KiB")
    larger = json.loads(json.dumps(content))
    larger["runtimes"][0]["arms"][0]["models"].append("one-more")
    load(database.connect(autocommit=True), manifest([], []))
    for what, this, options in (
        ("dry run", content, {"dry_run": True}),
        ("load", content, {}),
        ("load with one model more", larger, {}),
        ("the same again", larger, {}),
    ):
        conn = database.connect(autocommit=True)
        seconds = timed(lambda: load(conn, this, **options))  # noqa: B023
        peak = peak_memory(one(conn, "select pg_backend_pid()"))
        print(f"  {what:26} {seconds:8.2f} s   {peak}")
    conn = database.connect(autocommit=True)
    conn.execute("set synchronous_commit = off")
    ws = create(conn, "away", "there/b")
    seconds = min(timed(lambda: conn.execute((SWITCHES % (CALLS, ws)).encode())) for _ in range(5))
    print(f"  {'change_runtime with a reset':26} {seconds / CALLS * 1e6:6.0f} us")
    call(conn, "workspace.delete_workspace", ws)


def timed(function: Any) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def peak_memory(pid: int) -> str:
    """The largest size that a backend had, shared buffers included."""
    status = Path(f"/proc/{pid}/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return f"{int(found[1]) // 1024} MiB at most" if found else ""


def main() -> None:
    with servers.start() as server, databases.create(server) as database:
        print(server.header)
        databases.install(database)
        measure(database, "generated", generated(100))
        measure(database, "generated", generated(100_000))
        for path in sys.argv[1:]:
            measure(database, Path(path).name, converted(json.loads(Path(path).read_text())))


if __name__ == "__main__":
    main()
