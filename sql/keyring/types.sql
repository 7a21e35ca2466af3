-- How secrets are sealed. Until the keyring has keys, values are kept plain (key_id null).

create schema keyring;
comment on schema keyring is 'How secrets are sealed. seal and unseal are the only door to a secret''s value.';

create type keyring.sealed_value as (
  sealed bytea,
  key_id integer
);
comment on type keyring.sealed_value is 'Internal: the bytes to store, and the key that sealed them (null: plain).';
