-- Internal.

create or replace function keyring.key_missing(problem text)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = 'PT500',
    message = format('The session''s key-encryption key %s.', key_missing.problem),
    detail = jsonb_build_object('code', 'ENCRYPTION_KEY_MISSING'),
    hint = 'Give the session the setting runtime_registry.kek. Nothing was changed.';
end
$$;
comment on function keyring.key_missing(text) is 'Internal: raises ENCRYPTION_KEY_MISSING.';
