-- Internal. What a refusal says of the models that would have been accepted.

create or replace function registry.valid_models(runtime text)
returns jsonb
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'valid_models', coalesce(
      (
        select jsonb_agg(listed.model order by listed.menu_position)
        from (
          select m.model, m.menu_position
          from registry.models as m
          where m.runtime = valid_models.runtime and m.menu_position is not null
          order by m.menu_position
          limit 50
        ) as listed
      ),
      '[]'
    ),
    'valid_models_total', coalesce(
      (select r.menu_size from registry.runtimes as r where r.name = valid_models.runtime), 0
    )
  )
$$;
comment on function registry.valid_models(text) is
  'Internal: the first 50 ids of a runtime''s menu and how many there are, for the DETAIL of a refusal.';
