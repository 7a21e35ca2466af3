-- Who may call over HTTP. Nothing here decides what a caller may do with workspaces: that is the service's table of routes.

create schema access;
comment on schema access is 'Who may call over HTTP: bearer tokens, of which only the hashes are kept.';

create table access.tokens (
  name text collate "C" not null,
  hash bytea not null,
  role text collate "C" not null,
  workspace_id uuid,
  created_at timestamptz not null,
  expires_at timestamptz,
  last_used_at timestamptz,
  revoked_at timestamptz,
  constraint tokens_pkey primary key (name),
  constraint tokens_hash_key unique (hash),
  constraint tokens_role_is_known check (role in ('admin', 'operator', 'workspace'))
);
comment on table access.tokens is 'Bearer tokens. A name is never used again, because the history of workspaces names it.';
comment on column access.tokens.hash is
  'SHA-256 of the token. Without salt or iterations, which are for what people choose: a token is 32 random bytes, no two are the same and none can be guessed.';
comment on column access.tokens.workspace_id is 'The only workspace that a token of the role workspace is for; null for the other roles.';
comment on column access.tokens.last_used_at is 'When it was last used, to the minute.';

create type access.token as (
  name text,
  role text,
  workspace_id uuid,
  created_at timestamptz,
  expires_at timestamptz,
  last_used_at timestamptz,
  revoked_at timestamptz
);
comment on type access.token is
  'A token as its keepers see it.
name: what it is called, and who the history of workspaces names. role: admin, operator or workspace. workspace_id: the workspace of a
token of the role workspace. expires_at: null: never. last_used_at: to the minute; null: never. revoked_at: null: it is not.';

create type access.caller as (
  name text,
  role text,
  workspace_id uuid
);
comment on type access.caller is 'Whose token it is, and what it is for.';
