-- Internal. All that a decision asks of the registry, in one statement.

create or replace function registry.look_up(runtime text, model text, previous_runtime text default null)
returns registry.finding
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- Plans are cached while the registry is small, and have to stay good when it is large.
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  finding registry.finding;
begin
  select
    (
      here.model is not null or claimed.provider is not null or (r.model_policy = 'any' and look_up.model is not null),
      coalesce(here.provider, claimed.provider),
      coalesce(here.billed_to, claimed.billed_to),
      here.deprecated_at <= now(),
      here.sunset_at
    )::registry.routing,
    here.is_contested,
    r.default_model,
    (true, standard.provider, standard.billed_to, standard.deprecated_at <= now(), standard.sunset_at)::registry.routing,
    standard.is_contested,
    previous.billed_to,
    previous.is_contested,
    previous.has_equivalents
  into finding
  from registry.runtimes as r
  -- Of the arms that list an id, the first has it on the menu.
  left join registry.models as standard
    on standard.runtime = r.name and standard.model = r.default_model and standard.menu_position is not null
  left join registry.models as previous
    on previous.runtime = look_up.previous_runtime
    and previous.model = look_up.model
    and previous.menu_position is not null
  left join registry.models as here
    on here.runtime = r.name and here.model = look_up.model and here.menu_position is not null
  -- No arm lists it: a prefix or an alias. Within a runtime no two providers overlap (refused at load), so of each kind
  -- only the greatest pattern that is not above the id can claim it: one step down an index, however many there are.
  left join lateral (
    select candidate.provider, candidate.billed_to
    from (
      select false as case_folded, look_up.model collate "C" as id
      union all
      select true, lower(look_up.model collate "C") where r.folds_case
    ) as asked
    cross join lateral (
      select c.pattern, c.is_prefix, c.provider, c.billed_to
      from registry.claims as c
      where c.runtime = r.name and c.case_folded = asked.case_folded and c.pattern <= asked.id
      order by c.pattern desc
      limit 1
    ) as candidate
    where here.model is null
      and case when candidate.is_prefix
        then starts_with(asked.id, candidate.pattern)
        else asked.id = candidate.pattern
      end
  ) as claimed on true
  where r.name = look_up.runtime;
  return finding;
end
$$;
comment on function registry.look_up(text, text, text) is
  'Internal: what the registry knows of a model on a runtime, and on the runtime before; all null of a runtime that is not registered.';
