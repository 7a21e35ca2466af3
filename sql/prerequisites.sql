-- What the rest relies on: UTF8 (model ids are compared by their UTF-8 bytes), PostgreSQL 15, and a schema registry that
-- nobody else has put functions into for ours to call.

do $$
begin
  if current_setting('server_version_num')::integer < 150000 then
    raise exception using
      errcode = 'PT422',
      message = 'Runtime Registry needs PostgreSQL 15 or newer.',
      detail = jsonb_build_object('code', 'DATABASE_UNSUPPORTED'),
      hint = 'Upgrade the server, or install into a newer one.';
  end if;
  if current_setting('server_encoding') <> 'UTF8' then
    raise exception using
      errcode = 'PT422',
      message = 'Runtime Registry needs a database with the encoding UTF8.',
      detail = jsonb_build_object('code', 'DATABASE_UNSUPPORTED'),
      hint = 'Create one: createdb --encoding=UTF8 --template=template0 NAME';
  end if;
  if exists (
    select from pg_catalog.pg_namespace as n where n.nspname = 'registry' and n.nspowner <> current_user::regrole
  ) then
    raise exception using
      errcode = 'PT422',
      message = 'The database has a schema named registry that belongs to another role.',
      detail = jsonb_build_object('code', 'DATABASE_UNSUPPORTED'),
      hint = 'Install as its owner, or into another database.';
  end if;
end
$$;
