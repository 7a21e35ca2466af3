-- How secrets are sealed. A secret is an OpenPGP message made with a data key; the data keys are kept here, each wrapped
-- (another OpenPGP message) by one key-encryption key, the KEK, which lives outside the database and comes with the session
-- as the setting runtime_registry.kek. Without any key, secrets are stored plain (key_id null).
--
-- An opened key lives in variables of the functions that use it, and those hand it on in plain expressions only: what stood
-- in a query could be shown by auto_explain. (plpgsql runs an expression as a query, though, once an error in it was caught
-- in the same transaction: after a value that did not open, a KEK that did not fit, or a refusal after which the client went
-- back to a savepoint.)

create schema keyring;
comment on schema keyring is 'How secrets are sealed. seal and unseal are the only door to a secret''s value.';

create sequence keyring.key_ids as integer;
comment on sequence keyring.key_ids is
  'The ids of keys. None is given twice, not even when the keys are lost: something may still refer to them.';

create table keyring.keys (
  id integer not null,
  wrapped bytea not null,
  state text not null,
  created_at timestamptz not null,
  retired_at timestamptz,
  constraint keys_pkey primary key (id)
);
create unique index keys_active_key on keyring.keys (state) where state = 'active';
comment on table keyring.keys is 'The data keys, wrapped by the KEK. One is active and seals; retired ones only open.';
comment on column keyring.keys.wrapped is 'The data key with its id, sealed with the KEK: proof that a KEK fits.';
comment on column keyring.keys.state is 'active or retired.';

create type keyring.sealed_value as (
  sealed bytea,
  key_id integer
);
comment on type keyring.sealed_value is 'Internal: the bytes to store, and the key that sealed them (null: plain).';

create type keyring.data_key as (
  key_id integer,
  secret text
);
comment on type keyring.data_key is 'Internal: an opened data key; all null where the keyring has none.';

create type keyring.unlocked as (
  with_key keyring.data_key,
  value text
);
comment on type keyring.unlocked is 'Internal: an opened key, and the value of a secret; null where there is none, or it does not open.';

create type keyring.reseal_progress as (
  next_after uuid,
  resealed bigint,
  unreadable bigint,
  skipped bigint
);
comment on type keyring.reseal_progress is
  'What a batch of keyring.reseal did.
next_after: where the next batch goes on; null: this was the last. resealed: values that the active key seals now. unreadable: values that
nothing opens, left as they are. skipped: workspaces that somebody held.';

create type keyring.status_entry as (
  key_id integer,
  state text,
  created_at timestamptz,
  retired_at timestamptz,
  secrets bigint,
  history bigint,
  unreadable bigint
);
comment on type keyring.status_entry is
  'A key, and what it seals; never a value.
key_id: the key; null: what is stored plain. state: active, retired, plain, or missing (values refer to it, but the keyring does not have it).
secrets, history: how many secrets, and models in the history, it seals. unreadable: how many of them do not open; null: not tried.';
