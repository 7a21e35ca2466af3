-- Internal. Every id and name enters through here.

create or replace function registry.clean_text(value text, argument text)
returns text
language plpgsql
immutable
parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Not the caller's collation: it would go on into every comparison.
  cleaned text collate "C" := clean_text.value;
  problem text;
  -- Nearly all ids and names are made of these alone, and have nothing to trim or to refuse. The frequent ones first.
  harmless constant text collate "C" := 'eaoirntslcudpmhgbfywkvxzjq0123456789-_./:ABCDEFGHIJKLMNOPQRSTUVWXYZ';
begin
  if octet_length(cleaned) between 1 and 255 and translate(cleaned, harmless, '') = '' then
    return cleaned;
  end if;

  -- What is far too long is refused untrimmed: trimming needs 13 times its memory.
  if octet_length(cleaned) <= 4096 then
    cleaned := registry.trim_text(cleaned);
  end if;
  problem := registry.text_problem(cleaned);
  if problem is not null then
    perform registry.invalid_argument(clean_text.argument, problem);
  end if;
  return cleaned;
end
$$;
comment on function registry.clean_text(text, text) is
  'Internal: the value without white space around it; INVALID_ARGUMENT, naming the argument, if it is no legal id or name.';
