create or replace function workspace.set_secret(
  ws uuid,
  name text,
  value text,
  expected_version bigint default null
)
returns workspace.change
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
declare
  called constant text collate "C" := workspace.secret_name(set_secret.name);
  current workspace.snapshot;
  stored keyring.sealed_value;
begin
  -- The value is kept as it is: white space and line breaks belong to it.
  if set_secret.value is null then
    perform registry.invalid_argument('value', 'is null');
  elsif set_secret.value = '' then
    perform registry.invalid_argument('value', 'is blank');
  elsif octet_length(set_secret.value) > 1048576 then
    perform registry.invalid_argument('value', 'is longer than 1048576 bytes');
  end if;

  current := workspace.lock_workspace(set_secret.ws);
  if set_secret.expected_version <> current.version then
    perform workspace.version_conflict(current.workspace_id, current.version, set_secret.expected_version);
  end if;

  select s.sealed, s.key_id
  into stored
  from workspace.secrets as s
  where s.workspace_id = current.workspace_id and s.key = called;
  if keyring.unseal(current.with_key, current.workspace_id, called, stored.sealed, stored.key_id) = set_secret.value then
    return workspace.write_secret_change(current, called, 'set_secret', false);
  end if;
  -- Sealed before it is written: a plain value must never reach a table or the WAL.
  stored := keyring.seal(current.with_key, current.workspace_id, called, set_secret.value);
  return workspace.write_secret_change(current, called, 'set_secret', true, stored);
end
$$;
comment on function workspace.set_secret(uuid, text, text, bigint) is
  'Gives a workspace a secret, such as a provider''s credential, or replaces it.
ws: the workspace. name: the secret''s name, such as MOONSHOT_API_KEY (ASCII letters, digits and _ - . /). value: kept as it is, 1 to 1048576 bytes. expected_version: refuse unless
the workspace is at this version.
The same value again changes nothing. The name MODEL is refused: the registry judges models, see workspace.set_model.
The names of its secrets tell which provider serves a workspace''s model, where several do (auth_env in the manifest).
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, VERSION_CONFLICT, ENCRYPTION_KEY_MISSING. Above READ COMMITTED, 40001 if the registry was
loaded meanwhile.';
