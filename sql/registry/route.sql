-- Internal. The rule behind resolve(); the model is taken as it is.

create or replace function registry.route(runtime text, model text, auth_env text[])
returns registry.routing
language plpgsql
stable
set search_path = pg_catalog, pg_temp
-- As in look_up.
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  finding constant registry.finding := registry.look_up(route.runtime, route.model);
  routing registry.routing := finding.routing;
begin
  -- Of several arms that list the id, the only one that the credentials open wins, else the first.
  if finding.is_contested and route.auth_env <> '{}' then
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
  routing.routable := coalesce(routing.routable, false);
  return routing;
end
$$;
comment on function registry.route(text, text, text[]) is
  'Internal: whether a runtime can run a model, by which provider, and who is billed.';
