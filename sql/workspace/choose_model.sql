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
  decided workspace.decision;
  last keyring.sealed_value;
begin
  decided.runtime := choose_model.runtime;

  -- An explicit choice is strict: it is never replaced by another model.
  if choose_model.model is not null then
    decided.model := choose_model.model;
    decided.model_source := 'requested';
    decided.routing := registry.route(choose_model.runtime, decided.model, current.credentials);
    if not (decided.routing).routable then
      perform registry.require_runtime(choose_model.runtime);
      perform registry.refuse_model(choose_model.runtime);
    end if;
    return decided;
  end if;

  if current.model is null then
    perform registry.require_runtime(choose_model.runtime);
    if current.model_is_unreadable then
      perform workspace.secret_unreadable(current.workspace_id);
    end if;
    decided.model_source := 'none';
    return decided;
  end if;

  decided.model := current.model;
  decided.model_source := 'kept';
  decided.routing := registry.route(choose_model.runtime, decided.model, current.credentials);

  -- Orphaned. What replaces it comes from the workspace's own history or the registry, never from the caller.
  if not (decided.routing).routable and choose_model.restore then
    select c.sealed, c.key_id
    into last
    from workspace.changes as c
    where c.workspace_id = current.workspace_id
      and c.runtime = choose_model.runtime
      and c.sealed is not null
    order by c.version desc
    limit 1;
    decided.model := keyring.unseal(current.with_key, current.workspace_id, 'MODEL', last.sealed, last.key_id);
    decided.model_source := 'restored';
    decided.routing := registry.route(choose_model.runtime, decided.model, current.credentials);
  end if;

  if not (decided.routing).routable then
    select
      coalesce(equivalent.model, r.default_model),
      case when equivalent.model is null then 'default' else 'equivalent' end
    into decided.model, decided.model_source
    from registry.runtimes as r
    left join lateral (
      select alike.model
      from registry.equivalents as alike
      -- Limited so that it stays what it is, a lookup for each, and is not turned into a walk along the menu.
      cross join lateral (
        select m.menu_position
        from registry.models as m
        where m.runtime = r.name and m.model = alike.model and m.menu_position is not null
        limit 1
      ) as listed
      where alike.group_number = (select e.group_number from registry.equivalents as e where e.model = current.model)
      order by listed.menu_position
      limit 1
    ) as equivalent on true
    where r.name = choose_model.runtime;
    if decided.model is null then
      perform registry.require_runtime(choose_model.runtime);
      raise exception using
        errcode = 'PT422',
        message = format(
          'The current model is not registered for the runtime %s, which has no default model.', choose_model.runtime
        ),
        detail = jsonb_build_object('code', 'NO_DEFAULT_MODEL', 'runtime', choose_model.runtime)
          || registry.valid_models(choose_model.runtime),
        hint = 'Take another runtime, or name a model that this one accepts in the same call. Nothing was changed.';
    end if;
    decided.routing := registry.route(choose_model.runtime, decided.model, current.credentials);
  end if;
  return decided;
end
$$;
comment on function workspace.choose_model(workspace.snapshot, text, text, boolean) is
  'Internal: the model a workspace gets on a runtime, and why.
Raises RUNTIME_UNSUPPORTED, REGISTRY_UNAVAILABLE, MODEL_NOT_REGISTERED, SECRET_UNREADABLE or NO_DEFAULT_MODEL.';
