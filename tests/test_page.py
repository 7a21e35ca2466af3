"""The page: who sees what, what it says, and that it is safe and usable as HTML alone."""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

import psycopg
import pytest

import databases
import pyapi.http
from benchmarks import fill
from databases import Database
from documents import Element, parse
from pyapi import (
    change_runtime,
    create_workspace,
    get_workspace,
    load_registry,
    overview,
    rename_workspace,
    revoke_token,
)
from pyapi.access import new_token
from pyapi.fleet import overview_call
from pyapi.http import Settings
from pyapi.http.operations import OPERATIONS
from pyapi.http.page import MOST_MODELS, MOST_ORPHANS, Held
from services import Answer, Service, running, token_for
from support import MANIFEST, Json, one, provider
from support import runtime as runs

KIMI = "moonshot/kimi-k2.6"
GEMINI = "platform:gemini-2.5-pro"
HOSTILE = "<script>alert(1)</script>\"'><b>&amp;"
Conn = psycopg.Connection[Any]


@dataclass(slots=True)
class World:
    """A running service, its database, and a token of each kind."""

    service: Service
    conn: Conn
    tokens: dict[str, str]
    own: UUID
    """The workspace of the token with the role workspace."""

    def look(self, token: str | None = "operator", /, **query: object) -> Answer:
        """Look at the page as a browser does, with a token by its name."""
        headers = {} if token is None else basic(self.tokens[token])
        given = f"?{urlencode(query)}" if query else ""
        return self.service.ask("GET", f"/{given}", headers=headers)

    def made(self, runtime: str = "claude-code", model: str | None = KIMI) -> UUID:
        """A new workspace."""
        return create_workspace(self.conn, "w", runtime, model=model).workspace_id


def basic(password: str, user: str = "anybody") -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}


def world_on(database: Database, service: Service) -> World:
    conn = database.connect(autocommit=True)
    own = create_workspace(conn, HOSTILE, "claude-code", model=KIMI).workspace_id
    tokens = {
        "admin": token_for(conn, "root", "admin"),
        "operator": token_for(conn, HOSTILE, "operator"),
        "workspace": token_for(conn, "assistant", "workspace", own),
        "revoked": token_for(conn, "former", "admin"),
        "expired": token_for(conn, "late", "admin"),
        "unknown": new_token(),
    }
    revoke_token(conn, "former")
    conn.execute("update access.tokens set expires_at = now() where name = 'late'")
    return World(service, conn, tokens, own)


@pytest.fixture(scope="module")
def world(template: Database) -> Iterator[World]:
    with databases.create(template.server, template) as database, running(database.dsn) as service:
        yield world_on(database, service)


def page_of(answer: Answer, status: int = 200) -> Element:
    assert answer.status == status
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return parse(answer.text)


def section(page: Element, id: str) -> str:
    return page.one("section", id=id).text


# Who sees what


@pytest.mark.parametrize("role", ["admin", "operator", "workspace"])
def test_a_token_is_the_password_whatever_the_name(world: World, role: str) -> None:
    token = world.tokens[role]
    for user in ("", "anybody", "ü"):
        assert world.service.ask("GET", "/", headers=basic(token, user)).status == 200
    assert world.service.ask("GET", "/", token).status == 200


REFUSED: list[dict[str, str]] = [
    {},
    {"Authorization": ""},
    {"Authorization": "Basic"},
    {"Authorization": "Basic !"},
    {"Authorization": "Basic /w=="},
    {"Authorization": "Digest x"},
    basic(""),
    basic("x" * 600),
    basic("a b"),
    {"Authorization": "Basic " + b64encode(b"no colon").decode()},
]


@pytest.mark.parametrize("headers", REFUSED, ids=repr)
def test_without_a_token_the_page_only_asks_for_one(world: World, headers: Any) -> None:
    only_asks(world.service.ask("GET", "/", headers=headers))


@pytest.mark.parametrize("token", ["revoked", "expired", "unknown"])
def test_a_token_that_is_none_any_more_opens_nothing(world: World, token: str) -> None:
    only_asks(world.look(token))
    only_asks(world.service.ask("GET", "/", world.tokens[token]))


def only_asks(answer: Answer) -> None:
    page = page_of(answer, 401)
    challenge = 'Basic realm="runtime-registry", charset="UTF-8"'
    assert answer.headers["www-authenticate"] == challenge
    assert page.one("h1").text == "Unauthorized"
    assert not page.all("section", "form", "table")


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_what_browsers_send_by_themselves_opens_nothing_else(world: World, operation: Any) -> None:
    path = operation.path.format(workspace_id=world.own, runtime="hermes")
    headers = basic(world.tokens["admin"])
    assert world.service.ask(operation.method, path, headers=headers).status == 401
    assert world.service.ask("GET", "/metrics", headers=headers).status == 401


def test_a_workspaces_token_sees_that_workspace_and_no_other(world: World) -> None:
    other = world.made()
    page = page_of(world.look("workspace"))
    assert page.one("section", id="workspace").one("h2").text == HOSTILE
    assert KIMI in section(page, "workspace")
    assert {each.attributes.get("id") for each in page.all("section")} == {
        "workspace",
        "preview",
        "models",
    }
    field = page.one("input", name="workspace_id")
    assert (field.attributes["value"], "readonly" in field.attributes) == (str(world.own), True)
    assert "google-adk" in section(
        page_of(world.look("workspace", workspace_id=world.own, runtime="google-adk")), "preview"
    )
    for ws in (other, uuid4()):
        answer = world.look("workspace", workspace_id=ws, runtime="google-adk")
        text = section(page_of(answer, 404), "preview")
        assert f"There is no workspace {ws}." in text
        assert KIMI not in text


def test_a_token_of_a_workspace_that_is_gone_finds_nothing(world: World) -> None:
    ws = uuid4()
    token = token_for(world.conn, f"of {ws}", "workspace", ws)
    assert page_of(world.service.ask("GET", "/", token), 404).one("h1").text == "Not Found"


# What it says


def test_the_fleet_is_what_the_database_counts(database: Database) -> None:
    with running(database.dsn) as service:
        world = world_on(database, service)
        for _ in range(3):
            change_runtime(world.conn, world.made(), "google-adk")
        world.made("hermes", None)
        page = page_of(world.look())
        assert "5 workspaces on 9 runtimes" in section(page, "fleet")
        head, *rows = page.one("section", id="fleet").all("tr")
        names = [cell.text for cell in head.all("th")]
        found = {}
        for row in rows:
            cells = dict(zip(names, [cell.text for cell in row.all("th", "td")], strict=True))
            for source in names[names.index("All") + 1 :]:
                if cells[source] != "0":
                    found[cells["Runtime"], source] = int(cells[source])
        counted = {
            (each.runtime, each.model_source): each.workspaces for each in overview(world.conn)
        }
        assert found == counted
        assert len(counted) == 3


def test_recent_changes_are_told_the_newest_first(world: World) -> None:
    ws = world.made()
    change_runtime(world.conn, ws, "google-adk")
    rename_workspace(world.conn, ws, "<i>other</i>")
    page = page_of(world.look())
    rows = [row.text for row in page.one("section", id="changes").all("tr")[1:4]]
    assert f"{ws} rename workspace to <i>other</i> google-adk {GEMINI} kept" in rows[0]
    assert (
        f"{ws} change runtime claude-code → then google-adk {KIMI} → then {GEMINI} default"
        in rows[1]
    )
    assert f"{ws} create workspace claude-code {KIMI} requested" in rows[2]
    link = page.one("section", id="changes").all("a")[0].attributes["href"]
    assert link == f"?workspace_id={ws}#preview"
    filled = page_of(world.look(workspace_id=ws))
    assert filled.one("input", name="workspace_id").attributes["value"] == str(ws)
    assert "Nothing was written" not in section(filled, "preview")


def test_models_are_listed_per_runtime(world: World) -> None:
    page = page_of(world.look(models="google-adk"))
    listed = [row.one("code").text for row in page.one("section", id="models").all("tr")[1:]]
    assert listed == [
        model
        for each in MANIFEST["runtimes"]
        if each["name"] == "google-adk"
        for arm in each["arms"]
        for model in arm.get("models", [])
    ]
    nav = page.one("section", id="models").one("nav")
    (current,) = (link for link in nav.all("a") if "aria-current" in link.attributes)
    assert current.text == "google-adk 6"
    for none in ("mock", "nowhere", HOSTILE):
        assert "has none" in section(page_of(world.look(models=none)), "models")


def test_orphans_are_looked_for_when_somebody_asks(database: Database) -> None:
    with running(database.dsn) as service:
        world = world_on(database, service)
        assert "Look for orphans" in section(page_of(world.look()), "orphans")
        assert "None: every model was registered" in section(
            page_of(world.look(orphans=1)), "orphans"
        )
    world.conn.execute("truncate workspace.workspaces cascade")
    listed = {"schema_version": 1, "providers": [provider("p", billed_to="tenant")]}
    load_registry(world.conn, {**listed, "runtimes": [runs("one", ("p", ["a", "b"]))]})
    made = [world.made("one", "a") for _ in range(MOST_ORPHANS + 1)]
    world.made("one", "b")
    fewer = {**listed, "runtimes": [runs("one", ("p", ["b"]))]}
    load_registry(world.conn, fewer, on_orphan="keep")
    with running(database.dsn) as service:
        world.service = service
        page = page_of(world.look(orphans=1))
    assert f"{len(made)} workspaces have a model" in section(page, "orphans")
    rows = page.one("section", id="orphans").all("tr")[1:]
    assert [row.one("th").text for row in rows] == sorted(map(str, made))[:MOST_ORPHANS]
    assert rows[0].text.endswith("one a not registered b default")


@pytest.mark.parametrize(
    ("runtime", "query", "words"),
    [
        ("google-adk", {}, f"Its model {KIMI} is not registered there. It would be replaced by"),
        ("google-adk", {}, "the runtime's default."),
        ("google-adk", {"model": GEMINI}, "it would get the model you named"),
        ("hermes", {}, f"Its model {KIMI} is registered there too and would stay"),
        ("claude-code", {}, "Nothing would change"),
        ("claude-code", {"model": "opus"}, "It would stay on claude-code"),
    ],
)
def test_a_preview_tells_the_decision_in_words_and_writes_nothing(
    world: World, runtime: str, query: Json, words: str
) -> None:
    ws = world.made()
    page = page_of(world.look(workspace_id=f" {ws} ", runtime=runtime, **query))
    assert words in section(page, "preview")
    assert page.one("title").text.startswith("Preview: ")
    (chosen,) = (each for each in page.all("option") if "selected" in each.attributes)
    assert chosen.text == runtime
    assert get_workspace(world.conn, ws).version == 1


def test_a_preview_restores_if_it_is_asked_to(world: World) -> None:
    ws = world.made()
    change_runtime(world.conn, ws, "google-adk")
    asked: Json = {"workspace_id": ws, "runtime": "claude-code"}
    assert "which it last had" not in section(page_of(world.look(**asked)), "preview")
    page = page_of(world.look(**asked, restore=1))
    assert "which it last had on this runtime" in section(page, "preview")
    assert "checked" in page.one("input", name="restore").attributes


def test_a_workspace_without_a_model_and_an_equivalent_are_told_too(database: Database) -> None:
    alike = {
        "schema_version": 1,
        "providers": [provider("p", billed_to="tenant"), provider("q", billed_to="platform")],
        "runtimes": [
            runs("one", ("p", ["a"])),
            runs("<b>", ("q", ["b", HOSTILE])),
        ],
        "equivalents": [["a", HOSTILE]],
    }
    with running(database.dsn) as service:
        world = world_on(database, service)
        world.conn.execute("truncate workspace.workspaces cascade")
        load_registry(world.conn, alike)
        query: Json = {"workspace_id": world.made("one", "a"), "runtime": "<b>"}
        text = section(page_of(world.look(models="<b>", **query)), "preview")
        assert "which is the same model under the name it has there" in text
        assert "this would change" in text
        assert f"a → then {HOSTILE} equivalent" in text
        query["workspace_id"] = world.made("one", None)
        text = section(page_of(world.look(**query)), "preview")
        assert "It has no model, and would have none." in text


@pytest.mark.parametrize(
    ("query", "status", "field", "words"),
    [
        ({"workspace_id": "nope"}, 400, "workspace_id", "This is not a UUID."),
        ({"workspace_id": ""}, 400, "workspace_id", "This is not a UUID."),
        ({"workspace_id": UUID(int=1)}, 404, "workspace_id", "There is no workspace"),
        ({"runtime": ""}, 400, "runtime", "This is blank."),
        ({"runtime": HOSTILE}, 422, "runtime", "is not in the registry"),
        ({"runtime": "external"}, 422, "runtime", "which has no default model"),
        ({"model": HOSTILE}, 422, "model", "is not registered for the runtime hermes"),
        ({"model": "a\0b"}, 400, "model", "This has a control character."),
    ],
)
def test_a_refusal_is_told_at_the_field_it_is_about(
    world: World, query: Json, status: int, field: str, words: str
) -> None:
    given = {"workspace_id": world.made(), "runtime": "hermes", **query}
    page = page_of(world.look(**given), status)
    (wrong,) = (each for each in page.all("input", "select") if "aria-invalid" in each.attributes)
    assert wrong.attributes["name"] == field
    assert wrong.attributes["aria-invalid"] == "true"
    described = wrong.attributes["aria-describedby"].split()
    assert described == [f"{field}-hint", f"{field}-error"]
    assert words in page.one("p", id=f"{field}-error").text
    assert page.one("title").text.startswith("Refused: ")
    if field == "model" and status == 422:
        assert KIMI in section(page, "preview")


# Safe and usable, as HTML alone

LOOKS: list[tuple[str | None, Json]] = [
    (None, {}),
    ("operator", {}),
    ("workspace", {}),
    ("operator", {"orphans": 1}),
    ("operator", {"workspace_id": HOSTILE, "runtime": HOSTILE, "model": HOSTILE}),
    ("operator", {"workspace_id": "OWN", "runtime": "hermes", "model": HOSTILE}),
    ("operator", {"workspace_id": "OWN", "runtime": "google-adk", "models": HOSTILE}),
]


@pytest.fixture(params=LOOKS, ids=lambda look: repr(look)[:60])
def looked(world: World, request: pytest.FixtureRequest) -> Answer:
    """An answer of each kind, with hostile names in it."""
    token, query = request.param
    query = {key: world.own if value == "OWN" else value for key, value in query.items()}
    return world.look(token, **query)


def test_nothing_is_run_and_nothing_loaded_from_elsewhere(world: World, looked: Answer) -> None:
    assert looked.headers["content-security-policy"] == (
        "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    )
    assert looked.headers["cache-control"] == "no-store"
    assert looked.headers["referrer-policy"] == "no-referrer"
    page = parse(looked.text)
    assert not page.all("script", "style", "b", "i", "iframe", "img", "base")
    for element in page.all():
        for name, value in element.attributes.items():
            assert not name.startswith("on")
            assert name != "style"
            if name in ("href", "src", "action"):
                assert re.match(r"data:,|page\.css|[#?]|\./", value), value
    style = world.service.ask("GET", "/page.css")
    assert (style.status, style.headers["content-type"]) == (200, "text/css; charset=utf-8")
    assert not re.search(r"url\(|@import|https?:", style.text)


def test_hostile_names_are_text(looked: Answer) -> None:
    assert "<script" not in looked.text
    assert "<b>" not in looked.text


def test_a_stored_model_is_in_no_address(looked: Answer) -> None:
    page = parse(looked.text)
    for link in page.all("a"):
        assert re.fullmatch(
            r"#[a-z]+|\./|\?workspace_id=[0-9a-f-]{36}#preview|\?(models=[a-z-]+#models|orphans=1#orphans)",
            link.attributes["href"],
        )
    for form in page.all("form"):
        assert (form.attributes["method"], form.attributes["action"]) == ("get", "./#preview")


def test_it_can_be_used_without_seeing_it(looked: Answer) -> None:
    page = parse(looked.text)
    assert page.one("html").attributes["lang"] == "en"
    assert page.one("title").text
    assert len(page.all("main")) == len(page.all("h1")) == 1
    ids = [each.attributes["id"] for each in page.all() if "id" in each.attributes]
    assert len(ids) == len(set(ids))

    levels = [int(each.tag[1]) for each in page.all("h1", "h2", "h3")]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    for each in page.all():
        for name in ("for", "aria-labelledby", "aria-describedby"):
            assert set(each.attributes.get(name, "").split()) <= set(ids)
    for link in page.all("a"):
        if link.attributes["href"].startswith("#"):
            assert link.attributes["href"][1:] in ids
        assert link.text
    if page.all("form"):
        assert page.all("a")[0].attributes["href"] == "#main"

    labelled = {each.attributes["for"] for each in page.all("label")}
    for each in page.all("input", "select"):
        assert each.attributes["id"] in labelled
    for table in page.all("table"):
        assert table.one("caption").text
        assert all(cell.attributes["scope"] in ("col", "row") for cell in table.all("th"))
        assert all(cell.text for cell in table.all("th"))
        for row in table.all("tbody")[0].all("tr"):
            assert len(row.all("th")) == 1
    for each in page.all("nav"):
        assert each.attributes["aria-label"]
    for each in page.all("svg"):
        assert each.attributes["aria-hidden"] == "true"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_there_is_nothing_to_write_to(world: World, method: str) -> None:
    answer = world.service.ask(method, "/", headers=basic(world.tokens["admin"]))
    assert (answer.status, answer.headers["allow"]) == (405, "GET")


def test_the_log_has_no_value_that_the_form_sent(world: World) -> None:
    answer = world.look(workspace_id=world.own, runtime="hermes", model="my-own-model")
    line = world.service.log_of(answer.headers["x-request-id"])
    assert (line["operation"], line["status"]) == ("page", 422)
    assert "my-own-model" not in str(world.service.logged)


# Large fleets, and databases in trouble


def test_a_large_fleet_and_a_large_registry_make_no_large_page(database: Database) -> None:
    models = [f"m{number}" for number in range(MOST_MODELS + 1000)]
    manifest = {
        **MANIFEST,
        "providers": [*MANIFEST["providers"], provider("large")],
        "runtimes": [
            *MANIFEST["runtimes"],
            runs("large", ("large", models)),
        ],
    }
    fill.fill(database.dsn, fill.CATALOGUE_PAIR, 100_000)
    with running(database.dsn) as service:
        world = world_on(database, service)
        load_registry(world.conn, manifest)
        answer = world.look(models="large")
        page = page_of(answer)
        assert "100,001 workspaces" in section(page, "fleet")
        assert len(page.one("section", id="changes").all("tr")) == 1 + 20
        assert len(page.one("section", id="models").all("tr")) == 1 + MOST_MODELS
        assert "And 1,000 more" in section(page, "models")
        assert len(answer.text) < 300_000


def test_a_fleet_that_cannot_be_counted_in_time_leaves_the_rest(database: Database) -> None:
    with running(database.dsn, statement_timeout="500ms", lock_timeout="1min") as service:
        world = world_on(database, service)
        with database.connect() as holder:
            holder.execute("lock table workspace.workspaces")
            page = page_of(world.look(models="hermes"))
        assert "too many to be counted" in section(page, "fleet")
        assert "create workspace" in section(page, "changes")
        assert "hermes" in section(page, "models")


def test_many_who_look_at_once_have_the_fleet_counted_once(database: Database) -> None:
    async def look() -> None:
        service = pyapi.http.Service(Settings(database=database.dsn))
        async with service.lifespan():
            fleet = Held(service, overview_call())
            with database.connect() as holder:
                holder.execute("lock table workspace.workspaces")
                looking = [asyncio.create_task(fleet.get("somebody")) for _ in range(50)]
                while not blocked(holder):
                    await asyncio.sleep(0.01)
            answers = await asyncio.gather(*looking)
            assert len({moment for _, moment in answers}) == 1
            _, first = answers[0]
            while (await fleet.get("somebody"))[1] == first:
                await asyncio.sleep(0.01)

    def blocked(holder: Conn) -> bool:
        count = "select count(*) from pg_stat_activity where %s = any (pg_blocking_pids(pid))"
        with database.connect() as observer:
            return bool(one(observer, count, holder.info.backend_pid))

    asyncio.run(look())


def test_without_a_registry_it_says_what_to_do(empty_database: Any) -> None:
    database = empty_database()
    database.psql("-q", "-1", "-f", databases.SQL / "install.sql")
    with running(database.dsn) as service, database.connect(autocommit=True) as conn:
        answer = service.ask("GET", "/", token_for(conn, "root", "admin"))
        assert "runtime-registry load" in page_of(answer).one("main").text


def test_a_lost_database_is_a_page_that_says_so(template: Database) -> None:
    with databases.create(template.server, template) as database, running(database.dsn) as service:
        token = token_for(database.connect(autocommit=True), "root", "admin")
        database.close()
        with database.server.connect(autocommit=True) as conn:
            conn.execute(f'alter database "{database.name}" allow_connections off'.encode())
            conn.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s",
                [database.name],
            )
        answer = service.ask("GET", "/", token)
        assert page_of(answer, 503).one("h1").text == "Service Unavailable"
        assert answer.headers["retry-after"] == "1"
