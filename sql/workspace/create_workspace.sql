create or replace function workspace.create_workspace(
  name text,
  runtime text,
  model text default null,
  id uuid default null,
  request_id text default null
)
returns workspace.change
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
  called constant text collate "C" := registry.clean_text(create_workspace.name, 'name');
  target constant text collate "C" := registry.clean_text(create_workspace.runtime, 'runtime');
  wanted constant text collate "C" :=
    case when create_workspace.model is not null then registry.clean_text(create_workspace.model, 'model') end;
  request constant text collate "C" :=
    case when create_workspace.request_id is not null then registry.clean_text(create_workspace.request_id, 'request_id') end;
  -- A request_id has no line break, so no other actor and request_id make the same text.
  digest bytea := sha256(convert_to(workspace.actor() || E'\n' || request, 'UTF8'));
  moment timestamptz;
  answer workspace.change;
  absent workspace.snapshot;
  decided workspace.decision;
begin
  -- Who repeats a request finds the workspace of the first try, because the id is made of the request's name: a UUID of
  -- version 8 (RFC 9562).
  digest := set_byte(digest, 6, get_byte(digest, 6) & 15 | 128);
  digest := set_byte(digest, 8, get_byte(digest, 8) & 63 | 128);
  absent.workspace_id := coalesce(
    create_workspace.id, encode(substr(digest, 1, 16), 'hex')::uuid, gen_random_uuid()
  );
  absent.version := 0;
  absent.model_is_unreadable := false;

  perform workspace.hold();
  absent.with_key := keyring.active_key();
  absent.next_position := workspace.own_position();
  moment := clock_timestamp();
  answer := workspace.recorded_answer(
    absent.with_key, absent.workspace_id, request, 'create_workspace', target, wanted, false, called
  );
  if answer.workspace_id is not null then
    return answer;
  end if;
  decided := workspace.choose_model(absent, target, wanted, false);

  begin
    insert into workspace.workspaces (id, name, runtime, version, created_at, updated_at, position)
    values (absent.workspace_id, called, target, 1, moment, moment, absent.next_position);
    -- An id is never used again: the history under it belongs to the workspace that was, and has this version.
    return workspace.write_change(absent, decided, 'create_workspace', request_id => request, name => called);
  exception
    when unique_violation then
      answer := workspace.recorded_answer(
        absent.with_key, absent.workspace_id, request, 'create_workspace', target, wanted, false, called
      );
      if answer.workspace_id is not null then
        return answer;
      end if;
      raise exception using
        errcode = 'PT409',
        message = format('The workspace id %s is taken.', absent.workspace_id),
        detail = jsonb_build_object('code', 'WORKSPACE_EXISTS', 'workspace_id', absent.workspace_id),
        hint = 'Leave id out to get a new one. The id of a deleted workspace stays taken.';
  end;
end
$$;
comment on function workspace.create_workspace(text, text, text, uuid, text) is
  'Creates a workspace. Strict on the pair: a model that is not registered for the runtime is refused.
name: what people call it; need not be unique. runtime: its runtime. model: its model; null: none yet. id: its id; null: a new one.
request_id: the caller''s name for this request; repeated by the same actor, it gets the recorded answer and creates nothing.
Errors: INVALID_ARGUMENT, WORKSPACE_EXISTS, REQUEST_ID_REUSED, RUNTIME_UNSUPPORTED, MODEL_NOT_REGISTERED, REGISTRY_UNAVAILABLE,
ENCRYPTION_KEY_MISSING. Above READ COMMITTED, 40001 if the registry was loaded meanwhile.';
