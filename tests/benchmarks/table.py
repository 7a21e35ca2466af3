"""What a run found: ratios with their goals, as text and as JSON, and two runs side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Goal:
    """What a row's ratio must reach: so much at least or, of a cost, so much at most."""

    bound: float
    at_most: bool = False

    def is_met_by(self, ratio: float) -> bool:
        """Whether a ratio is good enough."""
        return ratio <= self.bound if self.at_most else ratio >= self.bound

    def __str__(self) -> str:
        return f"{'<=' if self.at_most else '>='} {self.bound:g}"


@dataclass(frozen=True, slots=True)
class Row:
    """Two sides measured by turns: microseconds a call, one number each round.

    The ratio is how many times faster ours is than the other; of a row whose goal is `at_most`, how
    many times slower.
    """

    name: str
    ours: Sequence[float]
    against: str
    theirs: Sequence[float]
    goal: Goal | None = None

    @property
    def ratios(self) -> list[float]:
        """The ratio of each round: what disturbs the machine for a while disturbs both sides."""
        pairs = zip(self.ours, self.theirs, strict=True)
        if self.goal and self.goal.at_most:
            return [ours / theirs for ours, theirs in pairs]
        return [theirs / ours for ours, theirs in pairs]

    @property
    def ratio(self) -> float:
        """The median of the rounds."""
        return median(self.ratios)

    @property
    def verdict(self) -> str:
        """`pass`, `FAIL`, or nothing where there is no goal."""
        if self.goal is None:
            return ""
        return "pass" if self.goal.is_met_by(self.ratio) else "FAIL"


@dataclass(frozen=True, slots=True)
class Tail:
    """How long calls took under contention, in microseconds."""

    name: str
    side: str
    calls: int
    p50: float
    p99: float
    p999: float
    deadlocks: int


@dataclass(frozen=True, slots=True)
class Share:
    """A function's share of one call: how often it is called and how many microseconds it takes,
    without those that it calls."""

    function: str
    calls: float
    own: float


@dataclass(frozen=True, slots=True)
class Memory:
    """What one call took of a backend, in bytes: of its own, and with what it touched of the shared
    buffers."""

    name: str
    seconds: float
    private: int
    resident: int


@dataclass(frozen=True, slots=True)
class Growth:
    """What a side's calls cost with so much of something in the database, one number each round:
    microseconds, pages that were not in shared buffers, and bytes of WAL."""

    of: str
    size: int
    side: str
    times: Sequence[float]
    pages_read: Sequence[float]
    wal: Sequence[float]


@dataclass(slots=True)
class Report:
    """All of a run."""

    header: dict[str, str]
    rows: list[Row] = field(default_factory=list)
    shares: list[Share] = field(default_factory=list)
    tails: list[Tail] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    growth: list[Growth] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Write it as JSON, with what the text shows too: ratios and verdicts."""
        found: dict[str, Any] = asdict(self)
        for written, row in zip(found["rows"], self.rows, strict=True):
            written |= {"ratio": row.ratio, "verdict": row.verdict}
        path.write_text(json.dumps(found, indent=2) + "\n")

    def __str__(self) -> str:
        parts = ["\n".join(f"{name}: {value}" for name, value in self.header.items())]
        if self.rows:
            parts.append(_rows_text(self.rows))
        if self.shares:
            shares = [(s.function, f"{s.calls:.0f}", f"{s.own:.1f} us") for s in self.shares]
            parts.append(layout(("what a call is made of", "calls", "own time"), shares))
        if self.tails:
            waited = [
                (t.name, t.side, t.calls, *map(time_text, (t.p50, t.p99, t.p999)), t.deadlocks)
                for t in self.tails
            ]
            titles = ("under contention", "", "calls", "p50", "p99", "p99.9", "deadlocks")
            parts.append(layout(titles, waited))
        if self.memory:
            taken = [
                (m.name, f"{m.seconds:.1f} s", size_text(m.private), size_text(m.resident))
                for m in self.memory
            ]
            heads = ("peak memory of the backend", "took", "its own", "with shared buffers")
            parts.append(layout(heads, taken))
        if self.growth:
            grown = [
                (
                    f"{g.size:,} {g.of}",
                    g.side,
                    time_text(median(g.times)),
                    f"{median(g.pages_read):.1f}",
                    f"{median(g.wal) / 1024:.1f} kB",
                )
                for g in self.growth
            ]
            parts.append(layout(("growth", "", "a call", "pages read", "WAL"), grown))
        parts += self.notes
        return "\n\n".join(parts)


def _rows_text(rows: Sequence[Row]) -> str:
    lines = [
        (
            row.name,
            time_text(median(row.ours)),
            row.against,
            time_text(median(row.theirs)),
            f"{row.ratio:.2f}",
            f"{min(row.ratios):.2f} to {max(row.ratios):.2f}",
            row.goal or "",
            row.verdict,
        )
        for row in rows
    ]
    return layout(("", "a call", "against", "a call", "ratio", "rounds", "goal", ""), lines)


def compare(before: Path, after: Path) -> str:
    """The rows that two runs have in common, by name."""
    old, new = (
        {(row["name"], row["against"]): row for row in json.loads(path.read_text())["rows"]}
        for path in (before, after)
    )
    lines = [
        (
            *key,
            *(time_text(median(run[key]["ours"])) for run in (old, new)),
            *(f"{run[key]['ratio']:.2f}" for run in (old, new)),
            f"{new[key]['ratio'] / old[key]['ratio'] - 1:+.1%}",
            new[key]["verdict"],
        )
        for key in old
        if key in new
    ]
    titles = ("", "against", "a call before", "after", "ratio before", "after", "", "")
    return layout(titles, lines)


def layout(titles: Sequence[object], lines: Sequence[Sequence[object]]) -> str:
    """Columns as wide as they need to be; what begins with a digit stands on the right."""
    texts = [[str(cell) for cell in line] for line in (titles, *lines)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    numeric = [
        all(cell[:1].isdigit() for cell in column if cell)
        for column in zip(*texts[1:], strict=True)
    ] or [False] * len(widths)

    def fit(line: list[str]) -> str:
        cells = zip(line, widths, numeric, strict=True)
        return "  ".join(
            cell.rjust(width) if right else cell.ljust(width) for cell, width, right in cells
        ).rstrip()

    return "\n".join(
        [fit(texts[0]), "  ".join("-" * width for width in widths)]
        + [fit(line) for line in texts[1:]]
    )


def time_text(microseconds: float) -> str:
    """Microseconds with their unit."""
    if microseconds >= 10_000:
        return f"{microseconds / 1000:.1f} ms"
    return f"{microseconds:.1f} us" if microseconds < 100 else f"{microseconds:.0f} us"


def size_text(number: int) -> str:
    """Bytes with their unit."""
    return f"{number / 2**20:.0f} MiB"
