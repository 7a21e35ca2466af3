"""Expected behaviour on the packaged catalogue, case by case.

A small table ships here. The full one, some thousand cases checked against an existing system, is
the file cases.json of the folder that RUNTIME_REGISTRY_REFERENCE names, else of `shared/reference`
beside the checkout. Where it is, its cases run as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support import (
    MANIFEST,
    REFERENCE,
    Conn,
    Json,
    call,
    create,
    load,
    pair,
    refused,
    rows,
    savepoint,
)

RESET = "platform:gemini-2.5-pro"
KIMI = "moonshot/kimi-k2.6"
SHIPPED: Json = {
    "defaults": {
        "claude-code": "sonnet",
        "hermes": "kimi-coding/kimi-k2",
        "codex": "gpt-5.5",
        "openclaw": "moonshot:kimi-k2.6",
        "google-adk": RESET,
        "external": None,
    },
    "menus": {
        "hermes": ["kimi-coding/kimi-k2", KIMI, "moonshot/kimi-k2.5"],
        "openclaw": ["moonshot:kimi-k2.6", "moonshot:kimi-k2.5", KIMI, "moonshot/kimi-k2.5"],
        "mock": [],
    },
    "resolve": [
        {"runtime": runtime, "model": model, "provider": provider}
        for runtime, model, provider in [
            ("claude-code", "opus", "anthropic-oauth"),
            ("claude-code", "claude-opus-4-8", "anthropic-api"),
            ("claude-code", "claude-made-up-9", "anthropic-api"),
            ("claude-code", "MINIMAX-M9", "minimax"),
            ("claude-code", KIMI, "platform"),
            ("claude-code", "kimi-coding/kimi-k2", "kimi-coding"),
            ("claude-code", "gpt-5.5", None),
            ("claude-code", "Opus", None),
            ("hermes", "openrouter/any/model", "openrouter"),
            ("hermes", "Kimi-k2", None),
            ("codex", "gpt-5.5", "openai-subscription"),
            ("codex", "codex-minimax-m2", "byok-minimax"),
            ("openclaw", "groq:llama", "groq"),
            ("openclaw", "moonshot:kimi-made-up", None),
            ("google-adk", "gemini-2.5-pro", "google"),
            ("google-adk", "vertex:gemini-2.5-pro", None),
            ("external", "gpt-5.5", None),
        ]
    ],
    "resolve_with_credentials": [
        {"runtime": "codex", "model": "gpt-5.5", "auth_env": names, "provider": provider}
        for names, provider in [
            ([], "openai-subscription"),
            (["OPENAI_API_KEY"], "openai-api"),
            (["CODEX_AUTH_JSON"], "openai-subscription"),
            (["OPENAI_API_KEY", "CODEX_AUTH_JSON"], "openai-subscription"),
            (["MINIMAX_API_KEY"], "openai-subscription"),
        ]
    ],
    "change_runtime": [
        {"current_model": current, "target": target, "outcome": outcome, "model_after": after}
        for current, target, outcome, after in [
            (None, "google-adk", "none", None),
            (KIMI, "google-adk", "reset", RESET),
            (KIMI, "hermes", "kept", KIMI),
            ("openrouter/x", "hermes", "kept", "openrouter/x"),
            ("gpt-5.5", "claude-code", "reset", "sonnet"),
            ("made-up", "codex", "reset", "gpt-5.5"),
            ("sonnet", "no-such-runtime", "rejected", "sonnet"),
            ("sonnet", "external", "rejected", "sonnet"),
        ]
    ],
    "set_model": [
        {"runtime": runtime, "model": model, "accepted": accepted}
        for runtime, model, accepted in [
            ("claude-code", KIMI, True),
            ("claude-code", RESET, False),
            ("google-adk", RESET, True),
            ("hermes", "zai/made-up", True),
            ("hermes", "gpt-5.5", False),
        ]
    ],
}

CASES = {"shipped": SHIPPED}
if (REFERENCE / "cases.json").exists():
    CASES["reference"] = json.loads((REFERENCE / "cases.json").read_text())

OUTCOMES = {
    "kept": "kept", "none": "none", "restored": "reset", "equivalent": "reset", "default": "reset",
}  # fmt: skip
ANY = {"name": "any-model", "model_policy": "any"}

Answers = Iterator[tuple[Any, Any]]  # what was expected, and what came


def defaults(conn: Conn, cases: Json) -> Answers:
    for runtime, default in cases.items():
        yield (runtime, default), (runtime, call(conn, "registry.default_model", runtime)[0])


def menus(conn: Conn, cases: Json) -> Answers:
    for runtime, menu in cases.items():
        yield (
            (runtime, menu),
            (runtime, [entry[0] for entry in rows(conn, "registry.menu", runtime)]),
        )


def resolve(conn: Conn, cases: list[Json]) -> Answers:
    for case in cases:
        args = [case["runtime"], case["model"]]
        if "auth_env" in case:
            args.append(case["auth_env"])
        yield case, {**case, "provider": call(conn, "registry.resolve", *args)[0]}


def change_runtime(conn: Conn, cases: list[Json]) -> Answers:
    load(conn, {**MANIFEST, "runtimes": [*MANIFEST["runtimes"], ANY]})  # it can hold every model
    for case in cases:
        with savepoint(conn):
            ws = create(conn, ANY["name"], case["current_model"])
            if case["outcome"] == "rejected":
                refusal = refused(conn, "workspace.change_runtime", ws, case["target"])
                got = {"outcome": "rejected", "model_after": pair(conn, ws)[1]}
                if "code" in case:
                    got["code"] = refusal.code
                assert refusal.sqlstate == "PT422"
            else:
                change = call(conn, "workspace.change_runtime", ws, case["target"])
                assert pair(conn, ws)[:2] == (case["target"], change.model)
                assert change.model_was_reset == (case["outcome"] == "reset")
                got = {"outcome": OUTCOMES[change.model_source], "model_after": change.model}
        yield case, {**case, **got}


def set_model(conn: Conn, cases: list[Json]) -> Answers:
    for case in cases:
        with savepoint(conn):
            ws = create(conn, case["runtime"])
            if case["accepted"]:
                accepted = (
                    call(conn, "workspace.set_model", ws, case["model"]).model == case["model"]
                )
            else:
                refusal = refused(conn, "workspace.set_model", ws, case["model"])
                accepted = refusal.code != "MODEL_NOT_REGISTERED"
        yield case, {**case, "accepted": accepted}


CHECKS: dict[str, Callable[[Conn, Any], Answers]] = {
    "defaults": defaults,
    "menus": menus,
    "resolve": resolve,
    "resolve_with_credentials": resolve,
    "change_runtime": change_runtime,
    "set_model": set_model,
}


class Summary:
    """Says at the end of the run how many cases of each set ran."""

    def __init__(self) -> None:
        self.ran: dict[str, int] = {}

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for name, count in self.ran.items():
            terminalreporter.write_line(f"reference cases, {name}: {count} ran and hold")


@pytest.fixture(scope="module")
def summary(pytestconfig: pytest.Config) -> Summary:
    plugin = Summary()
    pytestconfig.pluginmanager.register(plugin)
    return plugin


@pytest.mark.parametrize("name", CASES)
def test_every_case_holds(conn: Conn, summary: Summary, name: str) -> None:
    cases = CASES[name]
    assert set(cases) == set(CHECKS)
    ran = 0
    wrong = []
    for kind, check in CHECKS.items():
        with savepoint(conn):
            for expected, got in check(conn, cases[kind]):
                ran += 1
                if got != expected:
                    wrong.append((kind, expected, got))
    assert wrong == []
    assert ran == sum(len(listed) for listed in cases.values())
    assert ran >= {"shipped": 40, "reference": 2900}[name]
    summary.ran[name] = ran
