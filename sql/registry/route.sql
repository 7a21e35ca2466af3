-- Internal. The rule behind resolve(); the model is taken as it is.

create or replace function registry.route(runtime text, model text, auth_env text[])
returns registry.routing
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- Plans are cached while the registry is small, and have to stay good when it is large.
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  routing registry.routing;
begin
  -- An exact id. Of several arms that list it, the only one that the credentials open wins, else the first.
  if route.auth_env = '{}' then
    select true, m.provider, m.billed_to, m.deprecated_at <= now(), m.sunset_at
    into routing
    from registry.models as m
    where m.runtime = route.runtime and m.model = route.model and m.menu_position is not null;
  else
    select true, candidate.provider, candidate.billed_to, candidate.deprecated_at <= now(), candidate.sunset_at
    into routing
    from (
      select
        m.provider,
        m.billed_to,
        m.deprecated_at,
        m.sunset_at,
        m.arm_position,
        p.auth_env && route.auth_env as is_open,
        count(*) filter (where p.auth_env && route.auth_env) over () as open_arms
      from registry.models as m
      join registry.providers as p on p.name = m.provider
      where m.runtime = route.runtime and m.model = route.model
    ) as candidate
    order by (candidate.is_open and candidate.open_arms = 1) desc, candidate.arm_position
    limit 1;
  end if;
  if found then
    return routing;
  end if;

  -- A prefix or an alias. Within a runtime no two providers overlap (refused at load), so of each kind only the greatest
  -- pattern that is not above the id can claim it: one step down an index, however many there are.
  select
    claimed.provider is not null or (r.model_policy = 'any' and route.model is not null),
    claimed.provider,
    claimed.billed_to
  into routing.routable, routing.provider, routing.billed_to
  from registry.runtimes as r
  left join (
    (values (false, route.model collate "C"), (true, lower(route.model collate "C"))) as asked (case_folded, id)
    cross join lateral (
      select c.pattern, c.is_prefix, c.provider, c.billed_to
      from registry.claims as c
      where c.runtime = route.runtime and c.case_folded = asked.case_folded and c.pattern <= asked.id
      order by c.pattern desc
      limit 1
    ) as claimed
  ) on case when claimed.is_prefix then starts_with(asked.id, claimed.pattern) else asked.id = claimed.pattern end
  where r.name = route.runtime;
  routing.routable := coalesce(routing.routable, false);
  return routing;
end
$$;
comment on function registry.route(text, text, text[]) is
  'Internal: whether a runtime can run a model, by which provider, and who is billed.';
