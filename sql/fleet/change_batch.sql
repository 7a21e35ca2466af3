-- Internal. workspace.change_runtime for many workspaces at once: the same decision, by the same functions, and the same
-- rows, written by three statements. The registry and the keyring are held before, the workspaces' rows are locked, unless
-- nothing is to be written.

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
as $$
declare
  with_key constant keyring.data_key := keyring.active_key();
  -- For what may refuse: after a refusal that was caught it is run as a query (see sql/keyring/tables.sql). Whoever has no
  -- key and needs one fetches it.
  no_key constant keyring.data_key := null;
  own_actor constant text := workspace.actor();
  stored record;
  model text;
  current workspace.snapshot;
  decided workspace.decision;
  answer workspace.change;
  entry fleet.move_entry;

  -- A fleet has many workspaces and few distinct pairs: each pair is decided once, and found again under its name. Where
  -- there are many, it is cheaper to forget them now and then.
  pair text;
  place integer;
  places jsonb := '{}';
  entries fleet.move_entry[] := '{}';
  verdicts workspace.changes[] := '{}';
  is_written boolean[] := '{}';
  has_new_model boolean[] := '{}';
  verdict workspace.changes;
  detail text;

  -- What is to be written, a workspace an element; chosen: the place of its pair above.
  resealed keyring.sealed_value;
  changed_ids uuid[] := '{}';
  versions bigint[] := '{}';
  chosen integer[] := '{}';
  previous_sealed bytea[] := '{}';
  previous_key_ids integer[] := '{}';
  sealed bytea[] := '{}';
  key_ids integer[] := '{}';
  moment timestamptz;
  own_txid xid8;
  own_position bigint;
begin
  -- Row by row, so that the key stays out of queries (see sql/keyring/tables.sql).
  for stored in
    select
      w.id, w.runtime, w.version, s.sealed, s.key_id,
      own.credentials,
      w.runtime || E'\n' || own.credentials::text || E'\n' as pair,
      change_batch.request_id is not null and exists (
        select from workspace.changes as c where c.workspace_id = w.id and c.request_id = change_batch.request_id
      ) as is_recorded
    from unnest(change_batch.ids) as asked (id)
    join workspace.workspaces as w on w.id = asked.id
    cross join lateral (
      select array(
        select c.key::text from workspace.secrets as c where c.workspace_id = w.id and c.key <> 'MODEL' order by c.key
      ) as credentials
      offset 0  -- read once, not wherever it is used
    ) as own
    left join workspace.secrets as s on s.workspace_id = w.id and s.key = 'MODEL'
    where change_batch.from_runtime is null or w.runtime = change_batch.from_runtime
    order by w.id
  loop
    model := case when stored.sealed is not null then
      keyring.unseal(with_key, stored.id, 'MODEL', stored.sealed, stored.key_id)
    end;

    -- This very request was made before: it is not made again, whatever happened since.
    if stored.is_recorded then
      begin
        answer := workspace.recorded_answer(
          no_key, stored.id, change_batch.request_id, 'change_runtime',
          coalesce(change_batch.runtime, stored.runtime), null, change_batch.restore
        );
        entry := (
          stored.id, 'recorded', null, answer.version, answer.previous_runtime, answer.runtime,
          answer.previous_model, answer.model, answer.model_source
        );
      exception
        when sqlstate 'PT422' or sqlstate 'PT500' then
          get stacked diagnostics detail = pg_exception_detail;
          entry := (
            stored.id, 'refused', detail::jsonb ->> 'code', stored.version, stored.runtime, stored.runtime, model, model, null
          );
      end;
      return next entry;
      continue;
    end if;

    -- No two pairs have the same name: what a model may contain stands at its end.
    pair := stored.pair || case
      when model is not null then 'model ' || model
      when stored.sealed is not null then 'unreadable'
      else 'none'
    end;
    place := (places -> pair)::integer;
    -- What a workspace had before is its own.
    if place is null or change_batch.restore then
      place := cardinality(entries) + 1;
      current := (
        stored.id, stored.runtime, stored.version, stored.sealed, stored.key_id, model,
        stored.sealed is not null and model is null, no_key, null
      );
      begin
        decided := workspace.choose_model(
          current, coalesce(change_batch.runtime, stored.runtime), null, change_batch.restore
        );
        verdict := workspace.describe_change(current, decided, 'change_runtime');
        entry := (
          null, case when verdict.changed then 'changed' else 'unchanged' end, null,
          null, stored.runtime, decided.runtime, model, decided.model, decided.model_source
        );
      exception
        when sqlstate 'PT422' or sqlstate 'PT500' then
          get stacked diagnostics detail = pg_exception_detail;
          verdict := null;
          -- It is left as it is.
          entry := (null, 'refused', detail::jsonb ->> 'code', null, stored.runtime, stored.runtime, model, model, null);
      end;
      entries := entries || entry;
      verdicts := verdicts || verdict;
      -- As a single call, a move is recorded even where there is nothing to do: its replay would otherwise do it later. A
      -- reset is nobody's request to a workspace that is no orphan.
      is_written := is_written || (
        entry.outcome = 'changed'
        or (entry.outcome = 'unchanged' and change_batch.request_id is not null and change_batch.runtime is not null)
      );
      has_new_model := has_new_model || (entry.model is distinct from model);
      if place % 1000 = 0 then
        places := '{}';
      end if;
      places := places || jsonb_build_object(pair, place);
    end if;

    entry := entries[place];
    entry.workspace_id := stored.id;
    entry.version := stored.version;
    if is_written[place] then
      entry.version := stored.version + 1;
      if not change_batch.dry_run then
        -- A model that stays keeps its bytes.
        resealed := (stored.sealed, stored.key_id);
        if has_new_model[place] then
          resealed := keyring.seal(with_key, stored.id, 'MODEL', entry.model);
        end if;
        changed_ids := changed_ids || stored.id;
        versions := versions || entry.version;
        chosen := chosen || place;
        previous_sealed := previous_sealed || stored.sealed;
        previous_key_ids := previous_key_ids || stored.key_id;
        sealed := sealed || resealed.sealed;
        key_ids := key_ids || resealed.key_id;
      end if;
    end if;
    return next entry;
  end loop;

  if changed_ids = '{}' then
    return;
  end if;
  moment := clock_timestamp();
  own_txid := pg_current_xact_id();
  own_position := workspace.own_position();

  insert into workspace.secrets as s (workspace_id, key, sealed, key_id, updated_at)
  select n.workspace_id, 'MODEL', n.sealed, n.key_id, moment
  from unnest(changed_ids, chosen, sealed, key_ids) as n (workspace_id, place, sealed, key_id)
  where has_new_model[n.place]
  on conflict (workspace_id, key) do update set
    sealed = excluded.sealed,
    key_id = excluded.key_id,
    updated_at = excluded.updated_at;

  update workspace.workspaces as w
  set
    runtime = coalesce(change_batch.runtime, w.runtime),
    version = n.version,
    updated_at = moment,
    position = greatest(own_position, w.position)
  from unnest(changed_ids, versions) as n (workspace_id, version)
  where w.id = n.workspace_id;

  insert into workspace.changes (
    workspace_id, version, action, changed, previous_runtime, runtime,
    previous_sealed, previous_key_id, sealed, key_id,
    model_source, provider, billed_to, billing_changed,
    restore, actor, request_id, changed_at, txid, secret,
    model_deprecated, model_sunset_at, position
  )
  select
    n.workspace_id, n.version, v.action, v.changed, v.previous_runtime, v.runtime,
    n.previous_sealed, n.previous_key_id, n.sealed, n.key_id,
    v.model_source, v.provider, v.billed_to, v.billing_changed,
    change_batch.restore, own_actor, change_batch.request_id, moment, own_txid, null,
    v.model_deprecated, v.model_sunset_at, greatest(own_position, before.position)
  from unnest(changed_ids, versions, chosen, previous_sealed, previous_key_ids, sealed, key_ids)
    as n (workspace_id, version, place, previous_sealed, previous_key_id, sealed, key_id)
  join unnest(verdicts) with ordinality as v on v.ordinality = n.place
  left join workspace.changes as before
    on before.workspace_id = n.workspace_id and before.version = n.version - 1;

  -- As workspace.record_change.
  if current_setting('runtime_registry.notify', true) = 'on' then
    perform pg_notify('runtime_registry_changes', '');
  end if;
end
$$;
comment on function fleet.change_batch(uuid[], text, text, boolean, text, boolean) is
  'Internal: changes the runtime of many workspaces as workspace.change_runtime would, one by one.
from_runtime: of those that are on it; null: of all. runtime: null: resets those that are orphaned where they are. Returns a row for each, in
the order of their ids; one that is refused stops none of the others.';
