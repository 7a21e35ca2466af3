"""Databases to measure on: registries and workspaces of any number, and the floor."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

import pyapi
from pyapi import schema

from . import memory
from .table import Memory


@dataclass(frozen=True, slots=True)
class Pair:
    """A workspace is switched to `there` and back to `home`: both ways its model is orphaned."""

    home: str
    there: str


CATALOGUE_PAIR = Pair("claude-code", "google-adk")
MADE_PAIR = Pair("runtime-0", "runtime-1")


def workspace_id(number: int) -> UUID:
    """The id of a workspace by its number, as md5(number)::uuid in SQL; no order in them."""
    return UUID(hashlib.md5(str(number).encode()).hexdigest())


def made_manifest(models: int) -> dict[str, Any]:
    """A manifest with so many models: ten runtimes, two arms each, and each model with an
    equivalent on one other runtime (not on that of MADE_PAIR)."""
    runtimes, each = 10, models // 10
    menus = [[f"vendor-{r}/model-{m:06}-latest" for m in range(each)] for r in range(runtimes)]
    providers = [
        {
            "name": f"provider-{number}",
            "billed_to": "platform" if number % 2 else "tenant",
            "auth_env": [f"KEY_{number}"],
            "model_prefixes": [f"prefix-{number}/"],
        }
        for number in range(2 * runtimes)
    ]
    listed = [
        {
            "name": f"runtime-{r}",
            "arms": [
                {"provider": f"provider-{2 * r}", "models": menu[: each // 2]},
                {"provider": f"provider-{2 * r + 1}", "models": menu[each // 2 :]},
            ],
        }
        for r, menu in enumerate(menus)
    ]
    half = runtimes // 2
    equivalents = [
        list(twins)
        for one, other in zip(menus[:half], menus[half:], strict=True)
        for twins in zip(one, other, strict=True)
    ]
    return {
        "schema_version": 1,
        "providers": providers,
        "runtimes": listed,
        "equivalents": equivalents,
    }


def install(dsn: str) -> None:
    """Install the SQL and turn encryption on."""
    with psycopg.connect(dsn) as conn:
        conn.execute(schema.install_sql().encode())
        conn.execute("select keyring.init()")


def load(dsn: str, manifest: dict[str, Any], name: str) -> Memory:
    """Load a manifest, and say what that took."""
    with psycopg.connect(dsn) as conn, memory.watched(conn, name) as taken:
        pyapi.load_registry(conn, manifest)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("vacuum analyze")
    return taken.result()


def fill(dsn: str, pair: Pair, count: int) -> None:
    """Make so many workspaces on the pair's home, as create_workspace would, but all at once."""
    with psycopg.connect(dsn) as conn:
        model = pyapi.default_model(conn, pair.home)
        first = pyapi.create_workspace(conn, "first", pair.home, model=model).workspace_id
        conn.execute("set local session_replication_role = replica")  # no foreign keys: it is long
        conn.execute(
            "insert into workspace.workspaces"
            " select md5(n::text)::uuid, 'workspace ' || n, w.runtime, 1, now(), now()"
            " from generate_series(0, %s - 1) as n, workspace.workspaces as w where w.id = %s",
            [count, first],
        )
        conn.execute(
            "insert into workspace.secrets"
            " select w.id, 'MODEL', v.sealed, v.key_id, now() from workspace.workspaces as w"
            " cross join lateral keyring.seal("
            "   (select k from keyring.active_key() as k), w.id, 'MODEL', %s"
            " ) as v where w.id <> %s",
            [model, first],
        )
        changes = sql.SQL(
            "insert into workspace.changes ({columns}, workspace_id, sealed)"
            " select {values}, s.workspace_id, s.sealed"
            " from workspace.secrets as s, workspace.changes as c"
            " where c.workspace_id = %s and s.workspace_id <> c.workspace_id"
        )
        names = conn.execute(
            "select attname from pg_attribute where attrelid = 'workspace.changes'::regclass"
            " and attnum > 0 and not attisdropped and attname not in ('workspace_id', 'sealed')"
        ).fetchall()
        columns = sql.SQL(", ").join(sql.Identifier(name) for (name,) in names)
        values = sql.SQL(", ").join(sql.Identifier("c", name) for (name,) in names)
        conn.execute(changes.format(columns=columns, values=values), [first])
        pyapi.delete_workspace(conn, first)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("vacuum analyze")
        conn.execute("checkpoint")


def add_floor(dsn: str, pair: Pair) -> None:
    """Make the function that the reset path is compared with, after a reset each way.

    It writes the rows that change_runtime wrote then, with the very bytes, and does nothing else.
    """
    ws = workspace_id(0)
    with psycopg.connect(dsn) as conn:
        pyapi.change_runtime(conn, ws, pair.there)
        pyapi.change_runtime(conn, ws, pair.home)
        recorded = conn.execute(
            "select previous_sealed, previous_key_id, sealed, key_id, provider, billed_to,"
            " billing_changed, actor from workspace.changes"
            " where workspace_id = %s order by version desc limit 2",
            [ws],
        ).fetchall()
        home, there = ([sql.Literal(value) for value in row] for row in recorded)
        body = _FLOOR.format(
            home=sql.Literal(pair.home),
            there=sql.Literal(pair.there),
            went_home=sql.SQL(", ").join(home),
            went_there=sql.SQL(", ").join(there),
        )
        conn.execute(body)


def add_lean(dsn: str) -> None:
    """Make the function that shows what is left to gain: a reset in the fewest statements, and
    without a check, a refusal, a choice or a function of its own.

    It holds, locks, opens, looks up, seals and writes as change_runtime does, for a model that is
    no longer routable, that no credentials and no equivalents concern, and that opens.
    """
    with psycopg.connect(dsn) as conn:
        conn.execute(_LEAN.format(pgcrypto=_pgcrypto(conn)))


def add_raw_move(conn: psycopg.Connection[Any]) -> None:
    """Make the function that fleet.move is compared with: the pairs, sealed, and no history."""
    conn.execute(_RAW_MOVE.format(pgcrypto=_pgcrypto(conn)))


def add_lean_move(conn: psycopg.Connection[Any]) -> None:
    """Make the function that does no more than a batch of fleet.move has to: it holds the registry,
    locks what nobody else does, opens, seals, writes, records and tells. It is given the model."""
    conn.execute(_LEAN_MOVE.format(pgcrypto=_pgcrypto(conn)))


def _pgcrypto(conn: psycopg.Connection[Any]) -> sql.SQL:
    row = conn.execute(
        "select extnamespace::regnamespace::text from pg_extension where extname = 'pgcrypto'"
    ).fetchone()
    assert row
    return sql.SQL(row[0])


_RAW_MOVE = sql.SQL("""
create schema if not exists bench;
create function bench.move(source text, target text, model text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  -- The key itself: fleet.move opens by turns what is sealed here.
  secret constant text := (keyring.active_key()).secret;
  options constant text := 's2k-mode=1, cipher-algo=aes256, compress-algo=0';
  moment constant timestamptz := clock_timestamp();
begin
  with moved as (
    update workspace.workspaces as w
    set runtime = move.target, version = w.version + 1, updated_at = moment
    where w.runtime = move.source
    returning w.id
  )
  insert into workspace.secrets as s (workspace_id, key, sealed, key_id, updated_at)
  select
    m.id,
    'MODEL',
    {pgcrypto}.pgp_sym_encrypt(format(E'%s MODEL\\n%s', m.id, move.model), secret, options),
    1,
    moment
  from moved as m
  on conflict (workspace_id, key) do update set
    sealed = excluded.sealed, key_id = excluded.key_id, updated_at = excluded.updated_at;
end
$$
""")

_LEAN_MOVE = sql.SQL("""
create schema if not exists bench;
create function bench.lean_move(source text, target text, model text, after uuid, batch integer)
returns setof fleet.move_entry
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
declare
  secret constant text := (keyring.active_key()).secret;
  options constant text := 's2k-mode=1, cipher-algo=aes256, compress-algo=0';
  moment constant timestamptz := clock_timestamp();
  ids uuid[];
  txid xid8;
  place bigint;
begin
  lock table registry.state, keyring.keys in row share mode;
  ids := array(
    select w.id
    from workspace.workspaces as w
    where w.runtime = source
      and w.id >= coalesce(after, '00000000-0000-0000-0000-000000000000')
      and w.id is distinct from after
    order by w.id
    limit batch
    for no key update skip locked
  );
  txid := pg_current_xact_id();
  place := workspace.own_position();
  return query
    with n as materialized (
      select
        s.workspace_id as id,
        s.sealed,
        s.key_id,
        split_part({pgcrypto}.pgp_sym_decrypt(s.sealed, secret), E'\\n', 2) as before,
        {pgcrypto}.pgp_sym_encrypt(
          s.workspace_id || E' MODEL\\n' || lean_move.model, secret, options
        ) as resealed
      from workspace.secrets as s
      where s.workspace_id = any (ids) and s.key = 'MODEL'
    ),
    stored as (
      update workspace.secrets as s
      set sealed = n.resealed, key_id = 1, updated_at = moment
      from n
      where s.workspace_id = n.id and s.key = 'MODEL'
    ),
    moved as (
      update workspace.workspaces as w
      set
        runtime = lean_move.target,
        version = w.version + 1,
        updated_at = moment,
        position = greatest(place, w.position)
      where w.id = any (ids)
      returning w.id, w.version, w.position
    ),
    recorded as (
      insert into workspace.changes (
        workspace_id, version, action, changed, previous_runtime, runtime,
        previous_sealed, previous_key_id, sealed, key_id,
        model_source, provider, billed_to, billing_changed,
        restore, actor, request_id, changed_at, txid, position
      )
      select
        m.id, m.version, 'change_runtime', true, lean_move.source, lean_move.target,
        n.sealed, n.key_id, n.resealed, 1,
        'default', 'provider', 'platform', false,
        false, session_user, null, moment, txid, m.position
      from n
      join moved as m on m.id = n.id
    )
    select
      m.id, 'changed', null::text, m.version, lean_move.source, lean_move.target,
      n.before, lean_move.model, 'default'
    from n
    join moved as m on m.id = n.id
    order by m.id;
end
$$
""")

_LEAN = sql.SQL("""
create schema if not exists bench;
create function bench.lean(ws uuid, target text) returns workspace.change
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
declare
  home text;
  version bigint;
  place bigint;
  bytes bytea;
  key_id integer;
  wrapped bytea;
  secret text;
  before text;
  after text;
  provider text;
  billed_to text;
  billing_changed boolean;
  resealed bytea;
  actor text;
  moment timestamptz;
  txid xid8;
begin
  lock table registry.state, keyring.keys in row share mode;
  select w.runtime, w.version, w.position into home, version, place
  from workspace.workspaces as w where w.id = lean.ws for no key update;
  select
    s.sealed, k.id, k.wrapped,
    greatest((n.era << 45) + pg_current_xact_id()::text::bigint, place)
  into bytes, key_id, wrapped, place
  from workspace.secrets as s, keyring.keys as k, workspace.numbering as n
  where s.workspace_id = lean.ws and s.key = 'MODEL' and k.retired_at is null
    and n.made_in = n.tableoid and n.made_by = n.xmin;
  secret := split_part(
    {pgcrypto}.pgp_sym_decrypt(wrapped, current_setting('runtime_registry.kek')), E'\\n', 2
  );
  before := split_part({pgcrypto}.pgp_sym_decrypt(bytes, secret), E'\\n', 2);
  select d.model, d.provider, d.billed_to, d.billed_to <> p.billed_to
  into after, provider, billed_to, billing_changed
  from registry.runtimes as r
  join registry.models as d on d.runtime = r.name and d.model = r.default_model
  join registry.models as p on p.runtime = home and p.model = before
  left join registry.models as h on h.runtime = r.name and h.model = before
  left join lateral (
    select c.provider, c.is_prefix, c.pattern from registry.claims as c
    where c.runtime = r.name and not c.case_folded and c.pattern <= before
    order by c.pattern desc limit 1
  ) as c on case when c.is_prefix then starts_with(before, c.pattern) else before = c.pattern end
  where r.name = lean.target and h.model is null and c.provider is null;
  resealed := {pgcrypto}.pgp_sym_encrypt(
    lean.ws || E' MODEL\\n' || after, secret, 's2k-mode=1, cipher-algo=aes256, compress-algo=0'
  );
  actor := coalesce(nullif(current_setting('runtime_registry.actor', true), ''), session_user);
  moment := clock_timestamp();
  txid := pg_current_xact_id();
  update workspace.secrets as s set sealed = resealed, updated_at = moment
  where s.workspace_id = lean.ws and s.key = 'MODEL';
  update workspace.workspaces as w
  set runtime = lean.target, version = w.version + 1, updated_at = moment, position = place
  where w.id = lean.ws;
  insert into workspace.changes (
    workspace_id, version, action, changed, previous_runtime, runtime,
    previous_sealed, previous_key_id, sealed, key_id,
    model_source, provider, billed_to, billing_changed,
    restore, actor, request_id, changed_at, txid, position
  )
  values (
    lean.ws, version + 1, 'change_runtime', true, home, lean.target,
    bytes, key_id, resealed, key_id,
    'default', provider, billed_to, billing_changed,
    false, actor, null, moment, txid, place
  );
  return (
    lean.ws, version + 1, true, home, lean.target, before, after, 'default', true,
    provider, billed_to, billing_changed, true, false, null
  )::workspace.change;
end
$$
""")

_FLOOR = sql.SQL("""
create schema if not exists bench;
create function bench.floor(ws uuid, target text) returns bigint
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  previous_sealed bytea;
  previous_key_id integer;
  sealed bytea;
  key_id integer;
  provider text;
  billed_to text;
  billing_changed boolean;
  actor text;
  previous_runtime text;
  new_version bigint;
  moment timestamptz := clock_timestamp();
  txid xid8 := pg_current_xact_id();
begin
  if floor.target = {home} then
    select {went_home}, {there}
    into previous_sealed, previous_key_id, sealed, key_id, provider, billed_to, billing_changed,
      actor, previous_runtime;
  else
    select {went_there}, {home}
    into previous_sealed, previous_key_id, sealed, key_id, provider, billed_to, billing_changed,
      actor, previous_runtime;
  end if;
  insert into workspace.secrets as s (workspace_id, key, sealed, key_id, updated_at)
  values (floor.ws, 'MODEL', sealed, key_id, moment)
  on conflict (workspace_id, key) do update set
    sealed = excluded.sealed, key_id = excluded.key_id, updated_at = excluded.updated_at;
  update workspace.workspaces as w
  set runtime = floor.target, version = w.version + 1, updated_at = moment
  where w.id = floor.ws
  returning w.version into new_version;
  insert into workspace.changes (
    workspace_id, version, action, changed, previous_runtime, runtime,
    previous_sealed, previous_key_id, sealed, key_id,
    model_source, provider, billed_to, billing_changed,
    restore, actor, request_id, changed_at, txid
  )
  values (
    floor.ws, new_version, 'write_the_rows', true, previous_runtime, floor.target,
    previous_sealed, previous_key_id, sealed, key_id,
    'default', provider, billed_to, billing_changed,
    false, actor, null, moment, txid
  );
  return new_version;
end
$$
""")
