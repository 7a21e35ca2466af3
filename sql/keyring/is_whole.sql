-- Internal. An OpenPGP message proves all it says but where it ends: pgcrypto also reads one whose last length is too long.
--
-- As keyring.encrypt makes it, a message is the way to its key (14 bytes) and a packet: a tag, then parts of 16384 bytes,
-- each after the byte 0xEE, then the last part after its length (1, 2 or 5 bytes).

create or replace function keyring.is_whole(message bytea)
returns boolean
language plpgsql
immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  place integer := 15;
  first integer := get_byte(is_whole.message, place);
begin
  while first = 238 loop
    place := place + 16385;
    first := get_byte(is_whole.message, place);
  end loop;
  if first < 192 then
    return octet_length(is_whole.message) = place + 1 + first;
  elsif first < 224 then
    return octet_length(is_whole.message)
      = place + 2 + (first - 192) * 256 + get_byte(is_whole.message, place + 1) + 192;
  end if;
  return first = 255
    and substr(is_whole.message, place + 2, 4) = int4send(octet_length(is_whole.message) - place - 5);
end
$$;
comment on function keyring.is_whole(bytea) is 'Internal: whether a message that opened ends where it says.';
