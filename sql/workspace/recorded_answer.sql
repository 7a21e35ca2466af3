-- Internal. What a request_id settles: a caller that lost our answer asks again and gets the same one.

create or replace function workspace.recorded_answer(
  with_key keyring.data_key,
  ws uuid,
  request_id text,
  action text,
  runtime text,
  model text,
  restore boolean,
  name text default null
)
returns workspace.change
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  recorded workspace.changes;
  answer workspace.change;
begin
  if recorded_answer.request_id is null then
    return null;
  end if;
  select c.*
  into recorded
  from workspace.changes as c
  where c.workspace_id = recorded_answer.ws and c.request_id = recorded_answer.request_id;
  if not found then
    return null;
  end if;

  answer := workspace.change_of(
    recorded,
    keyring.unseal(with_key, recorded.workspace_id, 'MODEL', recorded.previous_sealed, recorded.previous_key_id),
    keyring.unseal(with_key, recorded.workspace_id, 'MODEL', recorded.sealed, recorded.key_id)
  );

  if recorded.sealed is not null and answer.model is null and recorded.action = recorded_answer.action then
    perform workspace.secret_unreadable(recorded_answer.ws);
  end if;

  -- What was asked for can be read off what was done. The version that was expected is a condition of the request, not a
  -- part of it.
  if recorded.action <> recorded_answer.action
    or recorded.runtime is distinct from coalesce(recorded_answer.runtime, recorded.previous_runtime)
    or recorded.restore <> recorded_answer.restore
    or recorded.name is distinct from recorded_answer.name
    or (case when recorded.model_source = 'requested' then answer.model end) is distinct from recorded_answer.model
  then
    raise exception using
      errcode = 'PT422',
      message = 'The request_id was already used for a different request on this workspace.',
      detail = jsonb_build_object('code', 'REQUEST_ID_REUSED', 'workspace_id', recorded_answer.ws),
      hint = 'Take a new request_id for a new request.';
  end if;
  return answer;
end
$$;
comment on function workspace.recorded_answer(keyring.data_key, uuid, text, text, text, text, boolean, text) is
  'Internal: the answer recorded for this request, null if there is none. Raises REQUEST_ID_REUSED if it was a different request.';
