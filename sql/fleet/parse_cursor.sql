-- Internal. A cursor is position.workspace.version.prunings; to its holders it is opaque.

create or replace function fleet.parse_cursor(cursor text)
returns fleet.place
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
  parts text[];
begin
  if parse_cursor.cursor is null then
    return (
      -1, '00000000-0000-0000-0000-000000000000', 0,
      coalesce((select r.prunings from fleet.retention as r), 0)
    )::fleet.place;
  end if;

  -- 18 digits always fit a bigint.
  parts := regexp_match(
    parse_cursor.cursor, '^(\d{1,18})\.([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.(\d{1,18})\.(\d{1,18})$'
  );
  if parts is null then
    perform registry.invalid_argument('cursor', 'is not a cursor that the feed gave out');
  end if;
  return (parts[1], parts[2], parts[3], parts[4])::fleet.place;
end
$$;
comment on function fleet.parse_cursor(text) is
  'Internal: the place that a cursor names; null names the beginning. Raises INVALID_ARGUMENT.';
