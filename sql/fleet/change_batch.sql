-- Internal. workspace.change_runtime for many workspaces at once: the same decision, by the same functions, and the same
-- rows, all written by one statement. The registry and the keyring are held before, unless nothing is to be written. It
-- never waits for a workspace: who holds several, as it does, would otherwise keep single callers waiting behind each other.

create or replace function fleet.change_batch(
  ids uuid[],
  from_runtime text,
  runtime text,
  restore boolean,
  request_id text,
  dry_run boolean
)
returns setof fleet.move_entry
language plpgsql
set search_path = pg_catalog, pg_temp
-- Plans made while the tables are small have to stay good.
set enable_seqscan = off
as $$
declare
  with_key constant keyring.data_key := keyring.active_key();
  -- For what may refuse: after a refusal that was caught it is run as a query (see sql/keyring/tables.sql). Whoever has no
  -- key and needs one fetches it.
  no_key constant keyring.data_key := null;
  sealing_key_id constant integer := with_key.key_id;
  own_actor constant text := workspace.actor();

  -- The workspaces, one an element. A loop over rows would cost more than what is done with them.
  found_ids uuid[];
  runtimes text[];
  versions bigint[];
  positions bigint[];
  sealed bytea[];
  key_ids integer[];
  credentials text[];
  is_recorded boolean[];
  models text[];
  new_models text[];
  resealed bytea[];
  chosen integer[];

  -- A fleet has many workspaces and few distinct pairs: each pair is decided once, for the first that has it.
  firsts integer[];
  first integer;
  current workspace.snapshot;
  decided workspace.decision;
  answer workspace.change;
  entry fleet.move_entry;
  entries fleet.move_entry[] := '{}';
  verdict workspace.change;
  verdicts workspace.change[] := '{}';
  is_written boolean[] := '{}';
  has_new_model boolean[] := '{}';
  detail text;

  moment timestamptz;
  own_txid xid8;
  own_position bigint;
begin
  if not change_batch.dry_run then
    found_ids := array(
      select w.id
      from workspace.workspaces as w
      where w.id = any (change_batch.ids)
        and (change_batch.from_runtime is null or w.runtime = change_batch.from_runtime)
      order by w.id
      for no key update skip locked
    );
  end if;

  -- One statement, so that no pair is torn where nothing is locked, and one walk along an index each, no join: it stays as
  -- good with any number of workspaces. What is locked, and what that guards, is read as it was then.
  select
    array_agg(w.id), array_agg(w.runtime), array_agg(w.version), array_agg(w.position),
    array_agg(w.sealed), array_agg(w.key_id), array_agg(w.credentials), array_agg(w.is_recorded)
  into found_ids, runtimes, versions, positions, sealed, key_ids, credentials, is_recorded
  from (
    select
      s.id,
      max(s.runtime) as runtime,
      max(s.version) as version,
      max(s.position) as position,
      string_agg(s.sealed, '') as sealed,
      max(s.key_id) as key_id,
      coalesce(array_agg(s.credential) filter (where s.credential is not null), '{}')::text as credentials,
      change_batch.request_id is not null and exists (
        select from workspace.changes as c where c.workspace_id = s.id and c.request_id = change_batch.request_id
      ) as is_recorded
    from (
      select
        w.id, w.runtime, w.version, w.position,
        null::bytea as sealed, null::integer as key_id, null::text as credential
      from workspace.workspaces as w
      where w.id = any (coalesce(found_ids, change_batch.ids))
        and (change_batch.from_runtime is null or w.runtime = change_batch.from_runtime)
      union all
      select
        m.workspace_id, null, null, null,
        case when m.key = 'MODEL' then m.sealed end,
        case when m.key = 'MODEL' then m.key_id end,
        case when m.key <> 'MODEL' then m.key end
      from workspace.secrets as m
      where m.workspace_id = any (coalesce(found_ids, change_batch.ids))
    ) as s
    group by s.id
    having max(s.version) is not null  -- else it is on another runtime, and only its secrets were found
    order by s.id
  ) as w;
  found_ids := coalesce(found_ids, '{}');
  models := keyring.unseal_all(with_key, found_ids, 'MODEL', sealed, key_ids);

  -- No two pairs have the same name: what a model may contain stands at its end. What a workspace had before, and what
  -- was recorded for it, is its own.
  with pairs as materialized (
    select row_number() over () as pair, n.places
    from (
      select array_agg(n.place) as places
      from unnest(runtimes, credentials, models, sealed, is_recorded)
        with ordinality as n (runtime, credentials, model, sealed, is_recorded, place)
      group by case
        when change_batch.restore or n.is_recorded then n.place::text
        else n.runtime || E'\n' || n.credentials || E'\n' || case
          when n.model is not null then 'model ' || n.model
          when n.sealed is not null then 'unreadable'
          else 'none'
        end
      end
    ) as n
  )
  select
    (select array_agg(p.pair order by n.place) from pairs as p cross join unnest(p.places) as n (place)),
    (select array_agg(p.places[1] order by p.pair) from pairs as p)
  into chosen, firsts;

  foreach first in array coalesce(firsts, '{}') loop
    verdict := null;
    if is_recorded[first] then
      -- This very request was made before: it is not made again, whatever happened since.
      begin
        answer := workspace.recorded_answer(
          no_key, found_ids[first], change_batch.request_id, 'change_runtime',
          coalesce(change_batch.runtime, runtimes[first]), null, change_batch.restore
        );
        entry := (
          null, 'recorded', null, answer.version, answer.previous_runtime, answer.runtime,
          answer.previous_model, answer.model, answer.model_source
        );
      exception
        when sqlstate 'PT422' or sqlstate 'PT500' then
          get stacked diagnostics detail = pg_exception_detail;
          entry := (
            null, 'refused', detail::jsonb ->> 'code', null, runtimes[first], runtimes[first],
            models[first], models[first], null
          );
      end;
    else
      current := (
        found_ids[first], runtimes[first], versions[first], sealed[first], key_ids[first], models[first],
        sealed[first] is not null and models[first] is null, no_key, null
      );
      begin
        decided := workspace.choose_model(
          current, coalesce(change_batch.runtime, runtimes[first]), null, change_batch.restore
        );
        verdict := workspace.describe_change(current, decided, 'change_runtime');
        entry := (
          null, case when verdict.changed then 'changed' else 'unchanged' end, null,
          null, runtimes[first], decided.runtime, models[first], decided.model, decided.model_source
        );
      exception
        when sqlstate 'PT422' or sqlstate 'PT500' then
          get stacked diagnostics detail = pg_exception_detail;
          verdict := null;
          -- It is left as it is.
          entry := (
            null, 'refused', detail::jsonb ->> 'code', null, runtimes[first], runtimes[first],
            models[first], models[first], null
          );
      end;
    end if;
    entries := entries || entry;
    verdicts := verdicts || verdict;
    -- As a single call, a move is recorded even where there is nothing to do: its replay would otherwise do it later. A
    -- reset is nobody's request to a workspace that is no orphan.
    is_written := is_written || (
      entry.outcome = 'changed'
      or (entry.outcome = 'unchanged' and change_batch.request_id is not null and change_batch.runtime is not null)
    );
    has_new_model := has_new_model || (
      entry.outcome = 'changed' and entry.model is distinct from models[first]
    );
  end loop;

  if true = any (is_written) and not change_batch.dry_run then
    -- A model that stays keeps its bytes.
    if true = any (has_new_model) then
      new_models := array(
        select case when has_new_model[n.pair] then (entries[n.pair]).model end
        from unnest(chosen) with ordinality as n (pair, place)
        order by n.place
      );
      resealed := keyring.seal_all(with_key, found_ids, 'MODEL', new_models);
    end if;

    moment := clock_timestamp();
    own_txid := pg_current_xact_id();
    own_position := workspace.own_position();
    with n as materialized (
      select
        n.id, n.version + 1 as version, n.pair, n.sealed, n.key_id, n.resealed,
        greatest(own_position, n.position) as position,  -- as workspace.lock_workspace
        has_new_model[n.pair] as has_new_model
      from unnest(found_ids, versions, positions, chosen, sealed, key_ids, resealed)
        as n (id, version, position, pair, sealed, key_id, resealed)
      where is_written[n.pair]
    ),
    stored as (
      -- Who gets another model has one.
      update workspace.secrets as s
      set sealed = n.resealed, key_id = sealing_key_id, updated_at = moment
      from n
      where s.workspace_id = n.id and s.key = 'MODEL' and n.has_new_model
    ),
    recorded as (
      insert into workspace.changes (
        workspace_id, version, action, changed, previous_runtime, runtime,
        previous_sealed, previous_key_id, sealed, key_id,
        model_source, provider, billed_to, billing_changed,
        restore, actor, request_id, changed_at, txid, secret,
        model_deprecated, model_sunset_at, position
      )
      select
        n.id, n.version, 'change_runtime', v.changed, v.previous_runtime, v.runtime,
        n.sealed, n.key_id,
        case when n.has_new_model then n.resealed else n.sealed end,
        case when n.has_new_model then sealing_key_id else n.key_id end,
        v.model_source, v.provider, v.billed_to, v.billing_changed,
        change_batch.restore, own_actor, change_batch.request_id, moment, own_txid, null,
        v.model_deprecated, v.model_sunset_at, n.position
      from n
      join unnest(verdicts) with ordinality as v on v.ordinality = n.pair
    )
    update workspace.workspaces as w
    set
      runtime = coalesce(change_batch.runtime, w.runtime),
      version = w.version + 1,
      updated_at = moment,
      position = greatest(own_position, w.position)
    where w.id = any (array(select n.id from n));

    -- As workspace.write_change.
    if current_setting('runtime_registry.notify', true) = 'on' then
      perform pg_notify('runtime_registry_changes', '');
    end if;
  end if;

  return query
    select
      n.id, e.outcome, e.code, coalesce(e.version, n.version + is_written[n.pair]::integer), e.previous_runtime,
      e.runtime, e.previous_model, e.model, e.model_source
    from unnest(found_ids, versions, chosen) as n (id, version, pair)
    join unnest(entries) with ordinality as e on e.ordinality = n.pair
    union all
    select
      other.id, case when w.id is null then 'gone' else 'skipped' end, null, w.version, w.runtime::text, w.runtime::text,
      null, null, null
    from unnest(change_batch.ids) as other (id)
    left join workspace.workspaces as w
      on w.id = other.id
      and (change_batch.from_runtime is null or w.runtime = change_batch.from_runtime)
    where cardinality(found_ids) < cardinality(change_batch.ids) and other.id <> all (found_ids)
    order by 1;
end
$$;
comment on function fleet.change_batch(uuid[], text, text, boolean, text, boolean) is
  'Internal: changes the runtime of many workspaces as workspace.change_runtime would, one by one.
from_runtime: of those that are on it; null: of all. runtime: null: resets those that are orphaned where they are. Returns a row for each, in
the order of their ids; one that is refused, or that somebody holds, stops none of the others.';
