"""The page and the documentation in a browser: looked at, used by keyboard, judged by axe.

RUNTIME_REGISTRY_SCREENSHOTS names a folder that gets pictures of all of it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

import databases
from databases import Database
from pyapi import change_runtime, create_workspace, get_workspace, rename_workspace, set_secret
from services import running, token_for
from support import Conn, make_unreadable

KIMI = "moonshot/kimi-k2.6"
NAMES = ("chromium", "chromium-browser", "google-chrome")
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 320, "height": 640}
TABS = 200


@dataclass(slots=True)
class World:
    """A running service, a fleet, and a browser to look at it with."""

    browser: Browser
    url: str
    conn: Conn
    tokens: dict[str, str]
    own: str
    contexts: ExitStack = field(default_factory=ExitStack)
    wrong: list[str] = field(default_factory=list)
    """Requests to anywhere else, and errors of scripts."""

    def visitor(self, role: str | None = "operator", **options: Any) -> Page:
        """A window of somebody who types in a token where the browser asks for a password."""
        if role:
            options["http_credentials"] = {"username": "me", "password": self.tokens[role]}
        options = {"viewport": WIDE, "base_url": self.url, **options}
        context = self.browser.new_context(**options)
        self.contexts.callback(context.close)
        page = context.new_page()
        page.on("request", lambda request: self._note(request.url))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        return page

    def _note(self, address: str) -> None:
        if not address.startswith((f"{self.url}/", "data:")):
            self.wrong.append(address)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = os.environ.get("RUNTIME_REGISTRY_CHROMIUM") or next(
        filter(None, map(shutil.which, NAMES))
    )
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def running_world(template: Database, browser: Browser) -> Iterator[World]:
    with databases.create(template.server, template) as database, running(database.dsn) as service:
        conn = database.connect(autocommit=True)
        made = [
            create_workspace(conn, "w", runtime, model=model).workspace_id
            for runtime in ("claude-code", "hermes", "openclaw")
            for model in (KIMI, KIMI, None)
            if runtime != "openclaw" or model is None
        ]
        for ws in made[::2]:
            change_runtime(conn, ws, "google-adk")
        change_runtime(conn, made[0], "claude-code", restore=True)
        set_secret(conn, made[0], "API_KEY", "x")
        make_unreadable(conn, made[1])
        rename_workspace(conn, made[0], "<b>research</b>")
        tokens = {
            "operator": token_for(conn, "alice", "operator"),
            "workspace": token_for(conn, "agent", "workspace", made[0]),
        }
        yield World(browser, service.url, conn, tokens, str(made[0]))


@pytest.fixture
def world(running_world: World) -> Iterator[World]:
    """The world, whose windows are closed after the test."""
    yield running_world
    running_world.contexts.close()
    assert running_world.wrong == []


@pytest.fixture
def picture(request: pytest.FixtureRequest) -> Callable[[Page], None]:
    """Take a picture, if there is a folder for it."""

    def take(page: Page) -> None:
        if folder := os.environ.get("RUNTIME_REGISTRY_SCREENSHOTS"):
            name = request.node.name.replace("/", " ")
            page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)

    return take


PAGES = {
    "fleet": ("operator", "/"),
    "orphans": ("operator", "/?orphans=1#orphans"),
    "own": ("workspace", "/"),
    "preview": ("operator", "/?workspace_id=OWN&runtime=google-adk&models=google-adk#preview"),
    "unchanged": ("workspace", "/?runtime=claude-code"),
    "refused": ("operator", "/?workspace_id=OWN&runtime=codex&model=nothing"),
    "wrong": ("operator", "/?workspace_id=what&runtime=codex"),
}


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_and_nothing_is_cut_off(
    world: World, picture: Callable[[Page], None], name: str, scheme: str, viewport: Any
) -> None:
    role, path = PAGES[name]
    page = world.visitor(role, color_scheme=scheme, viewport=viewport)
    page.goto(path.replace("OWN", world.own))
    picture(page)
    assert page.title().endswith("Runtime Registry")
    found = Axe().run(page).response
    assert [each["id"] for each in found["violations"]] == []
    assert "color-contrast" in [each["id"] for each in found["passes"]]
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


def test_the_style_follows_the_scheme(world: World) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        page = world.visitor(color_scheme=scheme)
        page.goto("/")
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(246, 246, 244)", "rgb(18, 20, 24)"]


def test_a_preview_by_keyboard_alone_without_scripts(world: World) -> None:
    page = world.visitor(java_script_enabled=False)
    page.goto("/")
    keyboard = page.keyboard
    keyboard.press("Tab")
    skip = page.locator("a.skip")
    box = skip.bounding_box()
    assert box
    assert box["x"] >= 0
    keyboard.press("Enter")
    assert page.url.endswith("#main")

    for _ in range(TABS):
        keyboard.press("Tab")
        if page.locator("#workspace_id:focus").count():
            break
    keyboard.type(world.own)
    keyboard.press("Tab")
    keyboard.type("google")
    keyboard.press("Tab")
    keyboard.press("Tab")
    keyboard.press("Space")
    with page.expect_navigation():
        keyboard.press("Enter")
    outcome = page.get_by_role("heading", name="It would move to google-adk")
    assert outcome.is_visible()
    assert "platform:gemini-2.5-pro" in page.locator(".outcome").inner_text()
    assert page.get_by_label("Prefer the model that it last had there").is_checked()
    assert get_workspace(world.conn, world.own).runtime == "claude-code"


def test_wherever_the_focus_is_it_is_seen(world: World) -> None:
    page = world.visitor()
    page.goto("/")
    seen = []
    for _ in range(TABS):
        page.keyboard.press("Tab")
        at, style, width = page.evaluate(
            """() => {
              const here = document.activeElement, style = getComputedStyle(here);
              return [here.outerHTML.slice(0, 90), style.outlineStyle, style.outlineWidth];
            }"""
        )
        if at.startswith("<body"):
            break
        assert (style, width) == ("solid", "3px"), at
        seen.append(at)
    assert len(seen) > 20
    assert len(page.locator("a, input, select, button, [tabindex='0']").all()) == len(seen)


def test_the_links_lead_where_they_say(world: World) -> None:
    page = world.visitor()
    page.goto("/")
    page.get_by_role("navigation", name="Runtimes").get_by_role("link", name="google-adk").click()
    assert page.get_by_role("table", name="Models registered for google-adk").is_visible()
    page.get_by_role("link", name=world.own).first.click()
    assert page.get_by_role("textbox", name="Workspace").input_value() == world.own
    page.get_by_label("To the runtime").select_option("codex")
    page.get_by_label("With the model").fill("nothing")
    page.get_by_role("button", name="Show what would happen").click()
    assert page.get_by_role("heading", name="It would be refused").is_visible()
    model = page.get_by_label("With the model")
    assert model.get_attribute("aria-invalid") == "true"
    assert "gpt-5.4" in page.locator(".outcome").inner_text()


def test_a_hostile_name_stays_text(world: World) -> None:
    page = world.visitor("workspace")
    page.goto("/")
    assert page.get_by_role("heading", level=2).first.inner_text() == "<b>research</b>"


def test_the_documentation_is_there_and_a_request_can_be_tried(
    world: World, picture: Callable[[Page], None]
) -> None:
    page = world.visitor(None)
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.goto("/docs")
    page.get_by_role("button", name="Authorize").first.click()
    page.get_by_label("Value:").or_(page.locator(".auth-container input")).first.fill(
        world.tokens["operator"]
    )
    page.locator(".auth-btn-wrapper .authorize").click()
    page.locator(".auth-btn-wrapper .btn-done").click()
    operation = page.locator("#operations-runtimes-list_runtimes")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Execute").click()
    answered = operation.locator(".live-responses-table .response-col_status").last
    answered.wait_for()
    picture(page)
    assert "200" in answered.inner_text()
    assert problems == []
