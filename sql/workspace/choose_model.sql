-- Internal. The decision itself. Everything that switches a runtime, or previews it, asks here.

create or replace function workspace.choose_model(
  current workspace.snapshot,
  runtime text,
  model text,
  restore boolean
)
returns workspace.decision
language plpgsql
stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  finding registry.finding;
  last keyring.sealed_value;
  chosen text := choose_model.model;
  source text := 'requested';
  routing registry.routing;
  previous_billed_to text;
  is_changed boolean;
begin
  -- An explicit choice is strict: it is never replaced by another model.
  if chosen is not null then
    routing := workspace.route(current.workspace_id, choose_model.runtime, chosen);
    if not routing.routable then
      perform registry.require_runtime(choose_model.runtime);
      perform registry.refuse_model(choose_model.runtime);
    end if;
    if current.model is not null then
      previous_billed_to := (workspace.route(current.workspace_id, current.runtime, current.model)).billed_to;
    end if;

  elsif current.model is null then
    perform registry.require_runtime(choose_model.runtime);
    if current.model_is_unreadable then
      perform workspace.secret_unreadable(current.workspace_id);
    end if;
    source := 'none';

  else
    chosen := current.model;
    source := 'kept';
    finding := registry.look_up(choose_model.runtime, chosen, current.runtime);
    routing := finding.routing;
    if finding.is_contested then
      routing := workspace.route(current.workspace_id, choose_model.runtime, chosen);
    end if;
    previous_billed_to := finding.previous_billed_to;
    if finding.previous_is_contested is not false then
      previous_billed_to := (workspace.route(current.workspace_id, current.runtime, chosen)).billed_to;
    end if;

    -- Orphaned. What replaces it comes from the workspace's own history or the registry, never from the caller.
    if routing.routable is not true and choose_model.restore then
      select c.sealed, c.key_id
      into last
      from workspace.changes as c
      where c.workspace_id = current.workspace_id
        and c.runtime = choose_model.runtime
        and c.sealed is not null
      order by c.version desc
      limit 1;
      chosen := keyring.unseal(current.with_key, current.workspace_id, 'MODEL', last.sealed, last.key_id);
      source := 'restored';
      routing := workspace.route(current.workspace_id, choose_model.runtime, chosen);
    end if;

    if routing.routable is not true and finding.has_equivalents is not false then
      select alike.model
      into chosen
      from registry.equivalents as e
      join registry.equivalents as alike on alike.group_number = e.group_number
      -- Limited so that it stays what it is, a lookup for each, and is not turned into a walk along the menu.
      cross join lateral (
        select m.menu_position
        from registry.models as m
        where m.runtime = choose_model.runtime and m.model = alike.model and m.menu_position is not null
        limit 1
      ) as listed
      where e.model = current.model
      order by listed.menu_position
      limit 1;
      if found then
        source := 'equivalent';
        routing := workspace.route(current.workspace_id, choose_model.runtime, chosen);
      end if;
    end if;

    if routing.routable is not true then
      chosen := finding.default_model;
      source := 'default';
      routing := finding.default_routing;
      if chosen is null then
        perform registry.require_runtime(choose_model.runtime);
        raise exception using
          errcode = 'PT422',
          message = format(
            'The current model is not registered for the runtime %s, which has no default model.', choose_model.runtime
          ),
          detail = jsonb_build_object('code', 'NO_DEFAULT_MODEL', 'runtime', choose_model.runtime)
            || registry.valid_models(choose_model.runtime),
          hint = 'Take another runtime, or name a model that this one accepts in the same call. Nothing was changed.';
      elsif finding.default_is_contested then
        routing := workspace.route(current.workspace_id, choose_model.runtime, chosen);
      end if;
    end if;
  end if;

  is_changed := choose_model.runtime is distinct from current.runtime
    or chosen is distinct from current.model
    or current.model_is_unreadable;
  return (
    choose_model.runtime,
    chosen,
    source,
    routing.provider,
    routing.billed_to,
    coalesce(routing.deprecated, false),
    routing.sunset_at,
    is_changed,
    is_changed and coalesce(previous_billed_to <> routing.billed_to, false)
  )::workspace.decision;
end
$$;
comment on function workspace.choose_model(workspace.snapshot, text, text, boolean) is
  'Internal: the model a workspace gets on a runtime, and why.
Raises RUNTIME_UNSUPPORTED, REGISTRY_UNAVAILABLE, MODEL_NOT_REGISTERED, SECRET_UNREADABLE or NO_DEFAULT_MODEL.';
