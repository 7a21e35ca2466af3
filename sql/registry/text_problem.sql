-- Internal. The one rule for ids and names: not blank, no control characters, at most 255 bytes.

create or replace function registry.text_problem(value text)
returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Unicode's control characters (C0, DEL, C1) and its two line breaks. translate() instead of a regular expression:
  -- Postgres caches only 32 of those a session.
  control_characters constant text :=
    E'\u0001\u0002\u0003\u0004\u0005\u0006\u0007\u0008\u0009\u000a\u000b\u000c\u000d\u000e\u000f'
    '\u0010\u0011\u0012\u0013\u0014\u0015\u0016\u0017\u0018\u0019\u001a\u001b\u001c\u001d\u001e\u001f\u007f'
    '\u0080\u0081\u0082\u0083\u0084\u0085\u0086\u0087\u0088\u0089\u008a\u008b\u008c\u008d\u008e\u008f'
    '\u0090\u0091\u0092\u0093\u0094\u0095\u0096\u0097\u0098\u0099\u009a\u009b\u009c\u009d\u009e\u009f\u2028\u2029';
begin
  if text_problem.value is null then
    return 'is null';
  elsif text_problem.value = '' then
    return 'is blank';
  elsif octet_length(text_problem.value) > 255 then
    return 'is longer than 255 bytes';
  elsif translate(text_problem.value, control_characters, '') <> text_problem.value then
    return 'has a control character';
  end if;
  return null;
end
$$;
comment on function registry.text_problem(text) is 'Internal: what is wrong with a trimmed id or name; null if nothing.';
