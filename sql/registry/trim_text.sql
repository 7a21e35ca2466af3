-- Internal.

create or replace function registry.trim_text(value text)
returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Unicode's White_Space property.
  white_space constant text :=
    E'\u0009\u000a\u000b\u000c\u000d \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006'
    '\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000';
begin
  return btrim(trim_text.value, white_space);
end
$$;
comment on function registry.trim_text(text) is 'Internal: the value without Unicode white space around it.';
