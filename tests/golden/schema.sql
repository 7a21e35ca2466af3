--
-- PostgreSQL database dump
--




--
-- Name: access; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA access;


--
-- Name: SCHEMA access; Type: COMMENT; Schema: -; Owner: -
--

COMMENT ON SCHEMA access IS 'Who may call over HTTP: bearer tokens, of which only the hashes are kept.';


--
-- Name: fleet; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA fleet;


--
-- Name: SCHEMA fleet; Type: COMMENT; Schema: -; Owner: -
--

COMMENT ON SCHEMA fleet IS 'All workspaces at once.';


--
-- Name: keyring; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA keyring;


--
-- Name: SCHEMA keyring; Type: COMMENT; Schema: -; Owner: -
--

COMMENT ON SCHEMA keyring IS 'How secrets are sealed. seal and unseal are the only door to a secret''s value.';


--
-- Name: pgcrypto; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA pgcrypto;


--
-- Name: SCHEMA pgcrypto; Type: COMMENT; Schema: -; Owner: -
--

COMMENT ON SCHEMA pgcrypto IS 'The extension pgcrypto, for Runtime Registry.';


--
-- Name: registry; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA registry;


--
-- Name: SCHEMA registry; Type: COMMENT; Schema: -; Owner: -
--

COMMENT ON SCHEMA registry IS 'What may run: providers, runtimes and the models registered for each.';


--
-- Name: workspace; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA workspace;


--
-- Name: SCHEMA workspace; Type: COMMENT; Schema: -; Owner: -
--

COMMENT ON SCHEMA workspace IS 'The workspaces: one runtime and one model each, changed together, every change recorded.';


--
-- Name: pgcrypto; Type: EXTENSION; Schema: -; Owner: -
--

CREATE EXTENSION IF NOT EXISTS pgcrypto WITH SCHEMA pgcrypto;


--
-- Name: EXTENSION pgcrypto; Type: COMMENT; Schema: -; Owner: -
--

COMMENT ON EXTENSION pgcrypto IS 'cryptographic functions';


--
-- Name: caller; Type: TYPE; Schema: access; Owner: -
--

CREATE TYPE access.caller AS (
	name text,
	role text,
	workspace_id uuid
);


--
-- Name: TYPE caller; Type: COMMENT; Schema: access; Owner: -
--

COMMENT ON TYPE access.caller IS 'Whose token it is, and what it is for.';


--
-- Name: token; Type: TYPE; Schema: access; Owner: -
--

CREATE TYPE access.token AS (
	name text,
	role text,
	workspace_id uuid,
	created_at timestamp with time zone,
	expires_at timestamp with time zone,
	last_used_at timestamp with time zone,
	revoked_at timestamp with time zone
);


--
-- Name: TYPE token; Type: COMMENT; Schema: access; Owner: -
--

COMMENT ON TYPE access.token IS 'A token as its keepers see it.
name: what it is called, and who the history of workspaces names. role: admin, operator or workspace. workspace_id: the workspace of a
token of the role workspace. expires_at: null: never. last_used_at: to the minute; null: never. revoked_at: null: it is not.';


--
-- Name: deprecation; Type: TYPE; Schema: fleet; Owner: -
--

CREATE TYPE fleet.deprecation AS (
	workspace_id uuid,
	runtime text,
	model text,
	deprecated_at timestamp with time zone,
	sunset_at timestamp with time zone,
	successor text
);


--
-- Name: TYPE deprecation; Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON TYPE fleet.deprecation IS 'A workspace with a deprecated model.
deprecated_at: from when on the model should not be used; it may lie ahead. sunset_at: from when on it is not going to work; null: not known.
successor: the model to use instead; null: none is named.';


--
-- Name: feed_entry; Type: TYPE; Schema: fleet; Owner: -
--

CREATE TYPE fleet.feed_entry AS (
	cursor text,
	workspace_id uuid,
	version bigint,
	action text,
	changed boolean,
	previous_runtime text,
	runtime text,
	previous_model text,
	model text,
	model_source text,
	provider text,
	billed_to text,
	actor text,
	request_id text,
	changed_at timestamp with time zone,
	secret text,
	needs_restart boolean,
	name text
);


--
-- Name: TYPE feed_entry; Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON TYPE fleet.feed_entry IS 'One change in the feed. cursor: for fleet.changes_after, to go on behind this change. needs_restart: an agent that ran before does not have
this pair yet. The rest is as in workspace.history.';


--
-- Name: move_entry; Type: TYPE; Schema: fleet; Owner: -
--

CREATE TYPE fleet.move_entry AS (
	workspace_id uuid,
	outcome text,
	code text,
	version bigint,
	previous_runtime text,
	runtime text,
	previous_model text,
	model text,
	model_source text
);


--
-- Name: TYPE move_entry; Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON TYPE fleet.move_entry IS 'What fleet.move or fleet.reset_orphans did to one workspace, or would do.
outcome: changed; unchanged (there was nothing to do); recorded (this request_id had done it before, and this is the answer of then); refused (code says
why; nothing was changed); skipped (somebody holds it); gone (it is deleted, or on another runtime).
version, runtime, model: those after it. model_source: why it is this model, as in workspace.change.';


--
-- Name: orphan; Type: TYPE; Schema: fleet; Owner: -
--

CREATE TYPE fleet.orphan AS (
	workspace_id uuid,
	runtime text,
	model text,
	problem text,
	reset_model text,
	reset_source text
);


--
-- Name: TYPE orphan; Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON TYPE fleet.orphan IS 'A workspace whose model is not routable on its runtime, or cannot be read.
problem: not registered, or unreadable (then model is null). reset_model, reset_source: what fleet.reset_orphans would give it: an
equivalent or the default; both null where it would refuse.';


--
-- Name: overview_entry; Type: TYPE; Schema: fleet; Owner: -
--

CREATE TYPE fleet.overview_entry AS (
	runtime text,
	model_source text,
	workspaces bigint
);


--
-- Name: TYPE overview_entry; Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON TYPE fleet.overview_entry IS 'How many workspaces have a runtime, and a model that came from there: requested, restored, equivalent, default or none (they have no model),
or kept: longer ago than the history goes back.';


--
-- Name: pair; Type: TYPE; Schema: fleet; Owner: -
--

CREATE TYPE fleet.pair AS (
	runtime text,
	model text
);


--
-- Name: TYPE pair; Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON TYPE fleet.pair IS 'Internal: a runtime and a model.';


--
-- Name: place; Type: TYPE; Schema: fleet; Owner: -
--

CREATE TYPE fleet.place AS (
	"position" bigint,
	workspace_id uuid,
	version bigint,
	prunings bigint
);


--
-- Name: TYPE place; Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON TYPE fleet.place IS 'Internal: a cursor, taken apart: a place in the feed, and how often there had been pruning when it was given out.';


--
-- Name: pruning; Type: TYPE; Schema: fleet; Owner: -
--

CREATE TYPE fleet.pruning AS (
	pruned bigint,
	cursor text,
	finished boolean
);


--
-- Name: TYPE pruning; Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON TYPE fleet.pruning IS 'What one batch of fleet.prune_changes did. pruned: how many changes it took away. cursor: where the next batch begins. finished: nothing that is old enough is left behind it.';


--
-- Name: registry_load; Type: TYPE; Schema: fleet; Owner: -
--

CREATE TYPE fleet.registry_load AS (
	revision bigint,
	loaded boolean,
	added jsonb,
	removed jsonb,
	changed jsonb,
	orphans jsonb
);


--
-- Name: TYPE registry_load; Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON TYPE fleet.registry_load IS 'What loading a manifest did, or would do.
revision: the registry''s revision now. loaded: whether the manifest was loaded.
added, removed, changed: arrays of objects, each with its kind (provider, runtime, arm, model or equivalent), the names that identify it, and
what the registry said of it before and says after, as far as that differs. In changed there is also the kind order: of a list
(of providers, runtimes, a runtime''s providers or an arm''s models), those that have changed places.
orphans: the workspaces whose model this manifest leaves unroutable, an array of objects with workspace_id, runtime, model, and what a reset
would give them: reset_model and reset_source (equivalent or default; both null where there is nothing).';


--
-- Name: revision; Type: TYPE; Schema: fleet; Owner: -
--

CREATE TYPE fleet.revision AS (
	revision bigint,
	loaded_at timestamp with time zone,
	loaded_by text,
	restored_from bigint,
	is_current boolean,
	providers bigint,
	runtimes bigint,
	models bigint
);


--
-- Name: TYPE revision; Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON TYPE fleet.revision IS 'One registry that was loaded.
restored_from: the older revision it is a copy of, if it was loaded with fleet.restore_registry. is_current: it is the one that counts.
providers, runtimes, models: how many it has; a model counts once for each runtime.';


--
-- Name: stored_model; Type: TYPE; Schema: fleet; Owner: -
--

CREATE TYPE fleet.stored_model AS (
	workspace_id uuid,
	runtime text,
	model text
);


--
-- Name: TYPE stored_model; Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON TYPE fleet.stored_model IS 'Internal: a workspace that has a model; null if it cannot be read.';


--
-- Name: workspace_entry; Type: TYPE; Schema: fleet; Owner: -
--

CREATE TYPE fleet.workspace_entry AS (
	workspace_id uuid,
	name text,
	runtime text,
	version bigint,
	created_at timestamp with time zone,
	updated_at timestamp with time zone
);


--
-- Name: TYPE workspace_entry; Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON TYPE fleet.workspace_entry IS 'A workspace in a list: what workspace.get_workspace tells of it, but for the model.';


--
-- Name: data_key; Type: TYPE; Schema: keyring; Owner: -
--

CREATE TYPE keyring.data_key AS (
	key_id integer,
	secret text
);


--
-- Name: TYPE data_key; Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON TYPE keyring.data_key IS 'Internal: an opened data key; all null where the keyring has none.';


--
-- Name: reseal_progress; Type: TYPE; Schema: keyring; Owner: -
--

CREATE TYPE keyring.reseal_progress AS (
	next_after uuid,
	resealed bigint,
	unreadable bigint,
	skipped bigint
);


--
-- Name: TYPE reseal_progress; Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON TYPE keyring.reseal_progress IS 'What a batch of keyring.reseal did.
next_after: where the next batch goes on; null: this was the last. resealed: values that the active key seals now. unreadable: values that
nothing opens, left as they are. skipped: workspaces that somebody held.';


--
-- Name: sealed_value; Type: TYPE; Schema: keyring; Owner: -
--

CREATE TYPE keyring.sealed_value AS (
	sealed bytea,
	key_id integer
);


--
-- Name: TYPE sealed_value; Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON TYPE keyring.sealed_value IS 'Internal: the bytes to store, and the key that sealed them (null: plain).';


--
-- Name: status_entry; Type: TYPE; Schema: keyring; Owner: -
--

CREATE TYPE keyring.status_entry AS (
	key_id integer,
	state text,
	created_at timestamp with time zone,
	retired_at timestamp with time zone,
	secrets bigint,
	history bigint,
	unreadable bigint
);


--
-- Name: TYPE status_entry; Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON TYPE keyring.status_entry IS 'A key, and what it seals; never a value.
key_id: the key; null: what is stored plain. state: active, retired, plain, or missing (values refer to it, but the keyring does not have it).
secrets, history: how many secrets, and models in the history, it seals. unreadable: how many of them do not open; null: not tried.';


--
-- Name: unlocked; Type: TYPE; Schema: keyring; Owner: -
--

CREATE TYPE keyring.unlocked AS (
	with_key keyring.data_key,
	value text
);


--
-- Name: TYPE unlocked; Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON TYPE keyring.unlocked IS 'Internal: an opened key, and the value of a secret; null where there is none, or it does not open.';




--
-- Name: arms; Type: TABLE; Schema: registry; Owner: -
--

CREATE TABLE registry.arms (
    runtime text NOT NULL COLLATE pg_catalog."C",
    "position" bigint NOT NULL,
    provider text NOT NULL COLLATE pg_catalog."C"
);


--
-- Name: TABLE arms; Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON TABLE registry.arms IS 'The providers of each runtime, in order.';


--
-- Name: claims; Type: TABLE; Schema: registry; Owner: -
--

CREATE TABLE registry.claims (
    runtime text NOT NULL COLLATE pg_catalog."C",
    case_folded boolean NOT NULL,
    pattern text NOT NULL COLLATE pg_catalog."C",
    is_prefix boolean NOT NULL,
    provider text NOT NULL COLLATE pg_catalog."C",
    billed_to text NOT NULL
);


--
-- Name: TABLE claims; Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON TABLE registry.claims IS 'The prefixes and aliases by which a runtime''s arms claim ids that no arm lists. What a prefix of the same provider already covers is left out, and two providers never overlap, so the greatest pattern not above an id is the only one that can claim it.';


--
-- Name: COLUMN claims.case_folded; Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON COLUMN registry.claims.case_folded IS 'The pattern is in lower case and is compared with the id in lower case.';


--
-- Name: equivalents; Type: TABLE; Schema: registry; Owner: -
--

CREATE TABLE registry.equivalents (
    model text NOT NULL COLLATE pg_catalog."C",
    group_number bigint NOT NULL
);


--
-- Name: TABLE equivalents; Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON TABLE registry.equivalents IS 'Ids that name one underlying model share a group.';


--
-- Name: models; Type: TABLE; Schema: registry; Owner: -
--

CREATE TABLE registry.models (
    runtime text NOT NULL COLLATE pg_catalog."C",
    model text NOT NULL COLLATE pg_catalog."C",
    arm_position bigint NOT NULL,
    provider text NOT NULL COLLATE pg_catalog."C",
    menu_position bigint,
    deprecated_at timestamp with time zone,
    sunset_at timestamp with time zone,
    successor text COLLATE pg_catalog."C",
    billed_to text NOT NULL,
    is_contested boolean NOT NULL,
    has_equivalents boolean NOT NULL
);


--
-- Name: TABLE models; Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON TABLE registry.models IS 'The exact model ids that the arms list.';


--
-- Name: COLUMN models.menu_position; Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON COLUMN registry.models.menu_position IS 'Its place on the runtime''s menu; null where an earlier arm already lists the id.';


--
-- Name: COLUMN models.deprecated_at; Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON COLUMN registry.models.deprecated_at IS 'From when on it should not be used any more; null: it is not deprecated.';


--
-- Name: COLUMN models.sunset_at; Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON COLUMN registry.models.sunset_at IS 'From when on it is not going to work any more; null: not known.';


--
-- Name: COLUMN models.successor; Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON COLUMN registry.models.successor IS 'The id to use instead; null: none is named.';


--
-- Name: COLUMN models.is_contested; Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON COLUMN registry.models.is_contested IS 'Several arms of the runtime list the id: the credentials at hand may decide who serves it.';


--
-- Name: COLUMN models.has_equivalents; Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON COLUMN registry.models.has_equivalents IS 'Whether equivalents names the id.';


--
-- Name: providers; Type: TABLE; Schema: registry; Owner: -
--

CREATE TABLE registry.providers (
    name text NOT NULL COLLATE pg_catalog."C",
    "position" bigint NOT NULL,
    billed_to text NOT NULL,
    auth_env text[] NOT NULL COLLATE pg_catalog."C",
    case_sensitive boolean NOT NULL,
    CONSTRAINT providers_billed_to_is_known CHECK ((billed_to = ANY (ARRAY['platform'::text, 'tenant'::text])))
);


--
-- Name: TABLE providers; Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON TABLE registry.providers IS 'Who serves models.';


--
-- Name: COLUMN providers.billed_to; Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON COLUMN registry.providers.billed_to IS 'Who pays for this provider''s models: platform or tenant.';


--
-- Name: COLUMN providers.auth_env; Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON COLUMN registry.providers.auth_env IS 'Names of the credentials it accepts; any one of them is enough.';


--
-- Name: COLUMN providers.case_sensitive; Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON COLUMN registry.providers.case_sensitive IS 'How its prefixes and aliases compare. False folds A-Z only. Exact ids always compare case-sensitively.';


--
-- Name: runtimes; Type: TABLE; Schema: registry; Owner: -
--

CREATE TABLE registry.runtimes (
    name text NOT NULL COLLATE pg_catalog."C",
    "position" bigint NOT NULL,
    model_policy text NOT NULL,
    default_model text COLLATE pg_catalog."C",
    menu_size bigint NOT NULL,
    folds_case boolean NOT NULL,
    CONSTRAINT runtimes_model_policy_is_known CHECK ((model_policy = ANY (ARRAY['registered'::text, 'any'::text])))
);


--
-- Name: TABLE runtimes; Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON TABLE registry.runtimes IS 'The agent programs a workspace can have. One without arms is federated: its models are not ours to list.';


--
-- Name: COLUMN runtimes.model_policy; Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON COLUMN registry.runtimes.model_policy IS 'registered: a model must be routable here. any: every model is accepted.';


--
-- Name: COLUMN runtimes.default_model; Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON COLUMN registry.runtimes.default_model IS 'The manifest''s default_model, else the first id of the menu; null when the menu is empty.';


--
-- Name: COLUMN runtimes.menu_size; Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON COLUMN registry.runtimes.menu_size IS 'How many models the menu has.';


--
-- Name: COLUMN runtimes.folds_case; Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON COLUMN registry.runtimes.folds_case IS 'Whether any of its claims is compared in lower case.';


--
-- Name: content; Type: TYPE; Schema: registry; Owner: -
--

CREATE TYPE registry.content AS (
	providers registry.providers[],
	runtimes registry.runtimes[],
	arms registry.arms[],
	models registry.models[],
	claims registry.claims[],
	equivalents registry.equivalents[]
);


--
-- Name: TYPE content; Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON TYPE registry.content IS 'Internal: the rows of all tables that are derived from a manifest.';


--
-- Name: routing; Type: TYPE; Schema: registry; Owner: -
--

CREATE TYPE registry.routing AS (
	routable boolean,
	provider text,
	billed_to text,
	deprecated boolean,
	sunset_at timestamp with time zone
);


--
-- Name: TYPE routing; Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON TYPE registry.routing IS 'Internal: whether a runtime can run a model, who serves it, who pays and for how long. Provider is null where any model is accepted and no arm claims it. Deprecated is null where no arm lists the id.';


--
-- Name: finding; Type: TYPE; Schema: registry; Owner: -
--

CREATE TYPE registry.finding AS (
	routing registry.routing,
	is_contested boolean,
	default_model text,
	default_routing registry.routing,
	default_is_contested boolean,
	previous_billed_to text,
	previous_is_contested boolean,
	has_equivalents boolean
);


--
-- Name: TYPE finding; Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON TYPE registry.finding IS 'Internal: what the registry knows of a model on a runtime, of the runtime''s default, and of the model on the runtime before (null where no arm lists it there). Where an id is contested, the routing is that without credentials.';


--
-- Name: installation; Type: TYPE; Schema: registry; Owner: -
--

CREATE TYPE registry.installation AS (
	schema_revision text,
	registry_revision bigint
);


--
-- Name: TYPE installation; Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON TYPE registry.installation IS 'What registry.status finds. schema_revision: the migration this database stands at. registry_revision: the registry that is loaded; 0: none.';


--
-- Name: manifest_problem; Type: TYPE; Schema: registry; Owner: -
--

CREATE TYPE registry.manifest_problem AS (
	path text,
	problem text
);


--
-- Name: TYPE manifest_problem; Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON TYPE registry.manifest_problem IS 'Internal: what is wrong with a manifest, and where.';


--
-- Name: model_entry; Type: TYPE; Schema: registry; Owner: -
--

CREATE TYPE registry.model_entry AS (
	"position" bigint,
	model text,
	provider text,
	billed_to text,
	is_default boolean,
	deprecated_at timestamp with time zone,
	sunset_at timestamp with time zone,
	successor text
);


--
-- Name: TYPE model_entry; Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON TYPE registry.model_entry IS 'One registered model, as registry.list_models shows it.';


--
-- Name: runtime_entry; Type: TYPE; Schema: registry; Owner: -
--

CREATE TYPE registry.runtime_entry AS (
	runtime text,
	model_policy text,
	default_model text,
	models bigint,
	providers text[]
);


--
-- Name: TYPE runtime_entry; Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON TYPE registry.runtime_entry IS 'One runtime, as registry.list_runtimes shows it.';


--
-- Name: change; Type: TYPE; Schema: workspace; Owner: -
--

CREATE TYPE workspace.change AS (
	workspace_id uuid,
	version bigint,
	changed boolean,
	previous_runtime text,
	runtime text,
	previous_model text,
	model text,
	model_source text,
	model_was_reset boolean,
	provider text,
	billed_to text,
	billing_changed boolean,
	needs_restart boolean,
	model_deprecated boolean,
	model_sunset_at timestamp with time zone
);


--
-- Name: TYPE change; Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON TYPE workspace.change IS 'What a write did to a workspace (or, from a preview, would do).
workspace_id: the workspace. version: its version after this. changed: whether anything changed.
previous_runtime, runtime, previous_model, model: the pair before and after; previous_model is null too if it was unreadable.
model_source: why it is this model: requested (the caller asked for it), kept (routable as it was), restored (the last one on this
runtime), equivalent (the same model under this runtime''s id), default (the runtime''s) or none (there is none).
model_was_reset: true for restored, equivalent and default: an orphaned model was replaced.
provider, billed_to: who serves the model and who pays. billing_changed: it is known who pays and who paid before, and they are not the same.
needs_restart: the running agent does not have this pair yet.
model_deprecated: the model is registered, but should not be used any more. model_sunset_at: when it ends, if that is known.';


--
-- Name: decision; Type: TYPE; Schema: workspace; Owner: -
--

CREATE TYPE workspace.decision AS (
	runtime text,
	model text,
	model_source text,
	provider text,
	billed_to text,
	model_deprecated boolean,
	model_sunset_at timestamp with time zone,
	changed boolean,
	billing_changed boolean
);


--
-- Name: TYPE decision; Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON TYPE workspace.decision IS 'Internal: the pair that a workspace shall have, and why; changed: whether it has another one, or none that can be read.';


--
-- Name: history_entry; Type: TYPE; Schema: workspace; Owner: -
--

CREATE TYPE workspace.history_entry AS (
	workspace_id uuid,
	version bigint,
	action text,
	changed boolean,
	previous_runtime text,
	runtime text,
	previous_model text,
	model text,
	model_source text,
	provider text,
	billed_to text,
	actor text,
	request_id text,
	changed_at timestamp with time zone,
	secret text,
	name text
);


--
-- Name: TYPE history_entry; Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON TYPE workspace.history_entry IS 'One change of a workspace, with its models readable; a model that cannot be read any more is null. secret: the name of the secret that
set_secret or delete_secret changed, never its value. name: the name that the change gave, if any.';


--
-- Name: key_use; Type: TYPE; Schema: workspace; Owner: -
--

CREATE TYPE workspace.key_use AS (
	key_id integer,
	secrets bigint,
	history bigint,
	unreadable bigint
);


--
-- Name: TYPE key_use; Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON TYPE workspace.key_use IS 'Internal: how many values a key sealed (null: stored plain), and how many of them do not open.';


--
-- Name: secret_entry; Type: TYPE; Schema: workspace; Owner: -
--

CREATE TYPE workspace.secret_entry AS (
	name text,
	updated_at timestamp with time zone
);


--
-- Name: TYPE secret_entry; Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON TYPE workspace.secret_entry IS 'A secret that a workspace has; never its value.';


--
-- Name: snapshot; Type: TYPE; Schema: workspace; Owner: -
--

CREATE TYPE workspace.snapshot AS (
	workspace_id uuid,
	runtime text,
	version bigint,
	sealed bytea,
	key_id integer,
	model text,
	model_is_unreadable boolean,
	with_key keyring.data_key,
	next_position bigint
);


--
-- Name: TYPE snapshot; Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON TYPE workspace.snapshot IS 'Internal: what a decision about a workspace starts from. with_key: the key that seals. next_position: the place of its next change in the feed; null where only the pair is read.';


--
-- Name: state; Type: TYPE; Schema: workspace; Owner: -
--

CREATE TYPE workspace.state AS (
	workspace_id uuid,
	name text,
	runtime text,
	model text,
	model_registered boolean,
	provider text,
	billed_to text,
	version bigint,
	created_at timestamp with time zone,
	updated_at timestamp with time zone,
	model_deprecated boolean,
	model_sunset_at timestamp with time zone
);


--
-- Name: TYPE state; Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON TYPE workspace.state IS 'A workspace as it is. model_registered: whether its model is routable on its runtime; null without a model.
model_deprecated: the model is registered, but should not be used any more. model_sunset_at: when it ends, if that is known.';


--
-- Name: authenticate(bytea); Type: FUNCTION; Schema: access; Owner: -
--

CREATE FUNCTION access.authenticate(hash bytea) RETURNS SETOF access.caller
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  moment constant timestamptz := clock_timestamp();
  found_token access.tokens;
begin
  -- The time this takes tells nothing about a token. What is compared, in the index, are hashes, and whoever tries cannot
  -- choose them byte by byte: that would be inverting SHA-256.
  select t.*
  into found_token
  from access.tokens as t
  where t.hash = authenticate.hash and t.revoked_at is null and (t.expires_at is null or t.expires_at > moment);
  if not found then
    return;
  end if;

  -- At most one write a minute, by one caller: the others neither wait for its lock nor take one. A standby does without.
  if (found_token.last_used_at is null or found_token.last_used_at < moment - interval '1 minute')
    and current_setting('transaction_read_only') = 'off'
  then
    perform from access.tokens as t
    where t.name = found_token.name and t.last_used_at is not distinct from found_token.last_used_at
    for no key update skip locked;
    if found then
      update access.tokens as t set last_used_at = moment where t.name = found_token.name;
    end if;
  end if;

  return next (found_token.name, found_token.role, found_token.workspace_id)::access.caller;
end
$$;


--
-- Name: FUNCTION authenticate(hash bytea); Type: COMMENT; Schema: access; Owner: -
--

COMMENT ON FUNCTION access.authenticate(hash bytea) IS 'Whose token it is; no row if it is nobody''s, expired or revoked, and nothing says which.
hash: the SHA-256 of the token. Call it in a transaction of its own, so that the use is on record even if what follows is refused.';


--
-- Name: create_token(text, text, bytea, uuid, timestamp with time zone); Type: FUNCTION; Schema: access; Owner: -
--

CREATE FUNCTION access.create_token(name text, role text, hash bytea, workspace_id uuid DEFAULT NULL::uuid, expires_at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS access.token
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  called constant text collate "C" := registry.clean_text(create_token.name, 'name');
  asked_role constant text collate "C" := create_token.role;
  moment constant timestamptz := clock_timestamp();
begin
  if asked_role is null then
    perform registry.invalid_argument('role', 'is null');
  elsif asked_role not in ('admin', 'operator', 'workspace') then
    perform registry.invalid_argument('role', 'is not admin, operator or workspace');
  elsif asked_role = 'workspace' and create_token.workspace_id is null then
    perform registry.invalid_argument('workspace_id', 'is null, and the role is workspace');
  elsif asked_role <> 'workspace' and create_token.workspace_id is not null then
    perform registry.invalid_argument('workspace_id', 'is for the role workspace only');
  elsif create_token.hash is null then
    perform registry.invalid_argument('hash', 'is null');
  elsif octet_length(create_token.hash) <> 32 then
    perform registry.invalid_argument('hash', 'is not a SHA-256 hash');
  elsif create_token.expires_at <= moment then
    perform registry.invalid_argument('expires_at', 'is in the past');
  end if;

  insert into access.tokens (name, hash, role, workspace_id, created_at, expires_at)
  values (
    called, create_token.hash, asked_role, create_token.workspace_id, moment, create_token.expires_at
  )
  on conflict do nothing;
  if not found then
    raise exception using
      errcode = 'PT409',
      message = 'A token has this name already.',
      detail = jsonb_build_object('code', 'TOKEN_EXISTS', 'name', called),
      hint = 'Take another name. The name of a revoked token stays taken: the history speaks of that one.';
  end if;
  return (called, asked_role, create_token.workspace_id, moment, create_token.expires_at, null, null)::access.token;
end
$$;


--
-- Name: FUNCTION create_token(name text, role text, hash bytea, workspace_id uuid, expires_at timestamp with time zone); Type: COMMENT; Schema: access; Owner: -
--

COMMENT ON FUNCTION access.create_token(name text, role text, hash bytea, workspace_id uuid, expires_at timestamp with time zone) IS 'Makes a token for the HTTP service known; the token itself stays with its maker.
name: what to call it; the history of workspaces will name it. role: admin, operator or workspace. hash: the SHA-256 of the token, which
should be at least 32 random bytes. workspace_id: the only workspace it is for, with the role workspace. expires_at: null: never.
Errors: INVALID_ARGUMENT, TOKEN_EXISTS.';


--
-- Name: list_tokens(); Type: FUNCTION; Schema: access; Owner: -
--

CREATE FUNCTION access.list_tokens() RETURNS SETOF access.token
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select t.name, t.role, t.workspace_id, t.created_at, t.expires_at, t.last_used_at, t.revoked_at
  from access.tokens as t
  order by t.created_at, t.name
$$;


--
-- Name: FUNCTION list_tokens(); Type: COMMENT; Schema: access; Owner: -
--

COMMENT ON FUNCTION access.list_tokens() IS 'Every token that was ever made, oldest first; never the token itself, nor its hash.';


--
-- Name: revoke_token(text); Type: FUNCTION; Schema: access; Owner: -
--

CREATE FUNCTION access.revoke_token(name text) RETURNS access.token
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  called constant text collate "C" := registry.clean_text(revoke_token.name, 'name');
  moment constant timestamptz := clock_timestamp();
  revoked access.token;
begin
  update access.tokens as t
  set revoked_at = coalesce(t.revoked_at, moment)
  where t.name = called
  returning t.name, t.role, t.workspace_id, t.created_at, t.expires_at, t.last_used_at, t.revoked_at
  into revoked;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = 'There is no token of this name.',
      detail = jsonb_build_object('code', 'TOKEN_NOT_FOUND', 'name', called),
      hint = 'Take one of those that access.list_tokens shows.';
  end if;
  return revoked;
end
$$;


--
-- Name: FUNCTION revoke_token(name text); Type: COMMENT; Schema: access; Owner: -
--

COMMENT ON FUNCTION access.revoke_token(name text) IS 'Ends a token, from its next use on; nothing is changed if it was revoked before.
name: its name.
Errors: INVALID_ARGUMENT, TOKEN_NOT_FOUND.';


--
-- Name: begin_batch(integer, boolean); Type: FUNCTION; Schema: fleet; Owner: -
--

CREATE FUNCTION fleet.begin_batch(batch integer, dry_run boolean) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  perform fleet.check_batch(begin_batch.batch);
  if begin_batch.dry_run is null then
    perform registry.invalid_argument('dry_run', 'is null');
  end if;

  -- The workspaces are chosen, locked and read by statements of their own: each has to see what was committed before it.
  perform registry.require_read_committed();
  if not begin_batch.dry_run then
    perform workspace.hold();
  end if;
end
$$;


--
-- Name: FUNCTION begin_batch(batch integer, dry_run boolean); Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON FUNCTION fleet.begin_batch(batch integer, dry_run boolean) IS 'Internal: checks the arguments and, unless nothing is to be written, holds the registry and the keyring.';


--
-- Name: change_batch(uuid[], text, text, boolean, text, boolean); Type: FUNCTION; Schema: fleet; Owner: -
--

CREATE FUNCTION fleet.change_batch(ids uuid[], from_runtime text, runtime text, restore boolean, request_id text, dry_run boolean) RETURNS SETOF fleet.move_entry
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
declare
  with_key constant keyring.data_key := keyring.active_key();
  -- For what may refuse: after a refusal that was caught it is run as a query (see sql/keyring/tables.sql). Whoever has no
  -- key and needs one fetches it.
  no_key constant keyring.data_key := null;
  sealing_key_id constant integer := with_key.key_id;
  own_actor constant text := workspace.actor();

  -- The workspaces, one an element. A loop over rows would cost more than what is done with them.
  found_ids uuid[];
  runtimes text[];
  versions bigint[];
  positions bigint[];
  sealed bytea[];
  key_ids integer[];
  credentials text[];
  is_recorded boolean[];
  models text[];
  new_models text[];
  resealed bytea[];
  chosen integer[];

  -- A fleet has many workspaces and few distinct pairs: each pair is decided once, for the first that has it.
  firsts integer[];
  first integer;
  current workspace.snapshot;
  decided workspace.decision;
  answer workspace.change;
  entry fleet.move_entry;
  entries fleet.move_entry[] := '{}';
  verdict workspace.change;
  verdicts workspace.change[] := '{}';
  is_written boolean[] := '{}';
  has_new_model boolean[] := '{}';
  detail text;

  moment timestamptz;
  own_txid xid8;
  own_position bigint;
begin
  if not change_batch.dry_run then
    found_ids := array(
      select w.id
      from workspace.workspaces as w
      where w.id = any (change_batch.ids)
        and (change_batch.from_runtime is null or w.runtime = change_batch.from_runtime)
      order by w.id
      for no key update skip locked
    );
  end if;

  -- One statement, so that no pair is torn where nothing is locked, and one walk along an index each, no join: it stays as
  -- good with any number of workspaces. What is locked, and what that guards, is read as it was then.
  select
    array_agg(w.id), array_agg(w.runtime), array_agg(w.version), array_agg(w.position),
    array_agg(w.sealed), array_agg(w.key_id), array_agg(w.credentials), array_agg(w.is_recorded)
  into found_ids, runtimes, versions, positions, sealed, key_ids, credentials, is_recorded
  from (
    select
      s.id,
      max(s.runtime) as runtime,
      max(s.version) as version,
      max(s.position) as position,
      string_agg(s.sealed, '') as sealed,
      max(s.key_id) as key_id,
      coalesce(array_agg(s.credential) filter (where s.credential is not null), '{}')::text as credentials,
      change_batch.request_id is not null and exists (
        select from workspace.changes as c where c.workspace_id = s.id and c.request_id = change_batch.request_id
      ) as is_recorded
    from (
      select
        w.id, w.runtime, w.version, w.position,
        null::bytea as sealed, null::integer as key_id, null::text as credential
      from workspace.workspaces as w
      where w.id = any (coalesce(found_ids, change_batch.ids))
        and (change_batch.from_runtime is null or w.runtime = change_batch.from_runtime)
      union all
      select
        m.workspace_id, null, null, null,
        case when m.key = 'MODEL' then m.sealed end,
        case when m.key = 'MODEL' then m.key_id end,
        case when m.key <> 'MODEL' then m.key end
      from workspace.secrets as m
      where m.workspace_id = any (coalesce(found_ids, change_batch.ids))
    ) as s
    group by s.id
    having max(s.version) is not null  -- else it is on another runtime, and only its secrets were found
    order by s.id
  ) as w;
  found_ids := coalesce(found_ids, '{}');
  models := keyring.unseal_all(with_key, found_ids, 'MODEL', sealed, key_ids);

  -- No two pairs have the same name: what a model may contain stands at its end. What a workspace had before, and what
  -- was recorded for it, is its own.
  with pairs as materialized (
    select row_number() over () as pair, n.places
    from (
      select array_agg(n.place) as places
      from unnest(runtimes, credentials, models, sealed, is_recorded)
        with ordinality as n (runtime, credentials, model, sealed, is_recorded, place)
      group by case
        when change_batch.restore or n.is_recorded then n.place::text
        else n.runtime || E'\n' || n.credentials || E'\n' || case
          when n.model is not null then 'model ' || n.model
          when n.sealed is not null then 'unreadable'
          else 'none'
        end
      end
    ) as n
  )
  select
    (select array_agg(p.pair order by n.place) from pairs as p cross join unnest(p.places) as n (place)),
    (select array_agg(p.places[1] order by p.pair) from pairs as p)
  into chosen, firsts;

  foreach first in array coalesce(firsts, '{}') loop
    verdict := null;
    if is_recorded[first] then
      -- This very request was made before: it is not made again, whatever happened since.
      begin
        answer := workspace.recorded_answer(
          no_key, found_ids[first], change_batch.request_id, 'change_runtime',
          coalesce(change_batch.runtime, runtimes[first]), null, change_batch.restore
        );
        entry := (
          null, 'recorded', null, answer.version, answer.previous_runtime, answer.runtime,
          answer.previous_model, answer.model, answer.model_source
        );
      exception
        when sqlstate 'PT422' or sqlstate 'PT500' then
          get stacked diagnostics detail = pg_exception_detail;
          entry := (
            null, 'refused', detail::jsonb ->> 'code', null, runtimes[first], runtimes[first],
            models[first], models[first], null
          );
      end;
    else
      current := (
        found_ids[first], runtimes[first], versions[first], sealed[first], key_ids[first], models[first],
        sealed[first] is not null and models[first] is null, no_key, null
      );
      begin
        decided := workspace.choose_model(
          current, coalesce(change_batch.runtime, runtimes[first]), null, change_batch.restore
        );
        verdict := workspace.describe_change(current, decided, 'change_runtime');
        entry := (
          null, case when verdict.changed then 'changed' else 'unchanged' end, null,
          null, runtimes[first], decided.runtime, models[first], decided.model, decided.model_source
        );
      exception
        when sqlstate 'PT422' or sqlstate 'PT500' then
          get stacked diagnostics detail = pg_exception_detail;
          verdict := null;
          -- It is left as it is.
          entry := (
            null, 'refused', detail::jsonb ->> 'code', null, runtimes[first], runtimes[first],
            models[first], models[first], null
          );
      end;
    end if;
    entries := entries || entry;
    verdicts := verdicts || verdict;
    -- As a single call, a move is recorded even where there is nothing to do: its replay would otherwise do it later. A
    -- reset is nobody's request to a workspace that is no orphan.
    is_written := is_written || (
      entry.outcome = 'changed'
      or (entry.outcome = 'unchanged' and change_batch.request_id is not null and change_batch.runtime is not null)
    );
    has_new_model := has_new_model || (
      entry.outcome = 'changed' and entry.model is distinct from models[first]
    );
  end loop;

  if true = any (is_written) and not change_batch.dry_run then
    -- A model that stays keeps its bytes.
    if true = any (has_new_model) then
      new_models := array(
        select case when has_new_model[n.pair] then (entries[n.pair]).model end
        from unnest(chosen) with ordinality as n (pair, place)
        order by n.place
      );
      resealed := keyring.seal_all(with_key, found_ids, 'MODEL', new_models);
    end if;

    moment := clock_timestamp();
    own_txid := pg_current_xact_id();
    own_position := workspace.own_position();
    with n as materialized (
      select
        n.id, n.version + 1 as version, n.pair, n.sealed, n.key_id, n.resealed,
        greatest(own_position, n.position) as position,  -- as workspace.lock_workspace
        has_new_model[n.pair] as has_new_model
      from unnest(found_ids, versions, positions, chosen, sealed, key_ids, resealed)
        as n (id, version, position, pair, sealed, key_id, resealed)
      where is_written[n.pair]
    ),
    stored as (
      -- Who gets another model has one.
      update workspace.secrets as s
      set sealed = n.resealed, key_id = sealing_key_id, updated_at = moment
      from n
      where s.workspace_id = n.id and s.key = 'MODEL' and n.has_new_model
    ),
    recorded as (
      insert into workspace.changes (
        workspace_id, version, action, changed, previous_runtime, runtime,
        previous_sealed, previous_key_id, sealed, key_id,
        model_source, provider, billed_to, billing_changed,
        restore, actor, request_id, changed_at, txid, secret,
        model_deprecated, model_sunset_at, position
      )
      select
        n.id, n.version, 'change_runtime', v.changed, v.previous_runtime, v.runtime,
        n.sealed, n.key_id,
        case when n.has_new_model then n.resealed else n.sealed end,
        case when n.has_new_model then sealing_key_id else n.key_id end,
        v.model_source, v.provider, v.billed_to, v.billing_changed,
        change_batch.restore, own_actor, change_batch.request_id, moment, own_txid, null,
        v.model_deprecated, v.model_sunset_at, n.position
      from n
      join unnest(verdicts) with ordinality as v on v.ordinality = n.pair
    )
    update workspace.workspaces as w
    set
      runtime = coalesce(change_batch.runtime, w.runtime),
      version = w.version + 1,
      updated_at = moment,
      position = greatest(own_position, w.position)
    where w.id = any (array(select n.id from n));

    -- As workspace.write_change.
    if current_setting('runtime_registry.notify', true) = 'on' then
      perform pg_notify('runtime_registry_changes', '');
    end if;
  end if;

  return query
    select
      n.id, e.outcome, e.code, coalesce(e.version, n.version + is_written[n.pair]::integer), e.previous_runtime,
      e.runtime, e.previous_model, e.model, e.model_source
    from unnest(found_ids, versions, chosen) as n (id, version, pair)
    join unnest(entries) with ordinality as e on e.ordinality = n.pair
    union all
    select
      other.id, case when w.id is null then 'gone' else 'skipped' end, null, w.version, w.runtime::text, w.runtime::text,
      null, null, null
    from unnest(change_batch.ids) as other (id)
    left join workspace.workspaces as w
      on w.id = other.id
      and (change_batch.from_runtime is null or w.runtime = change_batch.from_runtime)
    where cardinality(found_ids) < cardinality(change_batch.ids) and other.id <> all (found_ids)
    order by 1;
end
$$;


--
-- Name: FUNCTION change_batch(ids uuid[], from_runtime text, runtime text, restore boolean, request_id text, dry_run boolean); Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON FUNCTION fleet.change_batch(ids uuid[], from_runtime text, runtime text, restore boolean, request_id text, dry_run boolean) IS 'Internal: changes the runtime of many workspaces as workspace.change_runtime would, one by one.
from_runtime: of those that are on it; null: of all. runtime: null: resets those that are orphaned where they are. Returns a row for each, in
the order of their ids; one that is refused, or that somebody holds, stops none of the others.';


--
-- Name: changes_after(text, integer); Type: FUNCTION; Schema: fleet; Owner: -
--

CREATE FUNCTION fleet.changes_after(cursor text DEFAULT NULL::text, batch integer DEFAULT 1000) RETURNS SETOF fleet.feed_entry
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  -- A stable function and all it calls see one snapshot.
  place constant fleet.place := fleet.parse_cursor(changes_after.cursor);
  feed_end constant bigint := fleet.feed_end();
  prunings constant bigint := coalesce((select r.prunings from fleet.retention as r), 0);
  with_key constant keyring.data_key := keyring.active_key();
  recorded workspace.changes;
  entry fleet.feed_entry;
begin
  perform fleet.check_batch(changes_after.batch);
  -- A standby may be behind the server that gave the cursor.
  if place.position > feed_end and not pg_is_in_recovery() then
    perform registry.invalid_argument('cursor', 'is ahead of this database');
  end if;
  if changes_after.cursor is not null and exists (
    select
    from fleet.retention as r
    where r.prunings > place.prunings
      and (r.position, r.workspace_id, r.version) > (place.position, place.workspace_id, place.version)
  ) then
    perform registry.invalid_argument('cursor', 'is older than changes that were pruned');
  end if;

  -- Row by row, so that the key stays out of queries (see sql/keyring/tables.sql).
  for recorded in
    select c.*
    from workspace.changes as c
    where (c.position, c.workspace_id, c.version) > (place.position, place.workspace_id, place.version)
      and c.position < feed_end
    order by c.position, c.workspace_id, c.version
    limit changes_after.batch
  loop
    entry.cursor := concat_ws('.', recorded.position, recorded.workspace_id, recorded.version, prunings);
    entry.workspace_id := recorded.workspace_id;
    entry.version := recorded.version;
    entry.action := recorded.action;
    entry.changed := recorded.changed;
    entry.previous_runtime := recorded.previous_runtime;
    entry.runtime := recorded.runtime;
    entry.previous_model := keyring.unseal(
      with_key, recorded.workspace_id, 'MODEL', recorded.previous_sealed, recorded.previous_key_id
    );
    entry.model := keyring.unseal(with_key, recorded.workspace_id, 'MODEL', recorded.sealed, recorded.key_id);
    entry.model_source := recorded.model_source;
    entry.provider := recorded.provider;
    entry.billed_to := recorded.billed_to;
    entry.actor := recorded.actor;
    entry.request_id := recorded.request_id;
    entry.changed_at := recorded.changed_at;
    entry.secret := recorded.secret;
    entry.needs_restart := (workspace.change_of(recorded, entry.previous_model, entry.model)).needs_restart;
    entry.name := recorded.name;
    return next entry;
  end loop;
end
$$;


--
-- Name: FUNCTION changes_after(cursor text, batch integer); Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON FUNCTION fleet.changes_after(cursor text, batch integer) IS 'The committed changes of all workspaces behind a cursor, each with its own cursor; none if there are no more for now.
Followed from cursor to cursor it gives each change exactly once, a workspace''s in the order of their versions. A change is given when
every transaction is over that was older than the one that made it: one that stays open, in any database of the cluster, prepared ones
too, holds the feed up, but never makes it skip anything.
cursor: that of the last change seen; null: from the beginning of what has not been pruned; see also fleet.current_cursor. Cursors stay
good on a standby and in a database restored from a dump. batch: how many changes at most.
Models are opened as workspace.history does: one that cannot be read any more is null.
Errors: ENCRYPTION_KEY_MISSING, INVALID_ARGUMENT, also for a cursor that is ahead of this database (its changes were lost) or older than changes that were
pruned: then take fleet.current_cursor and read the workspaces anew.';


--
-- Name: check_batch(integer); Type: FUNCTION; Schema: fleet; Owner: -
--

CREATE FUNCTION fleet.check_batch(batch integer) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if check_batch.batch is null then
    perform registry.invalid_argument('batch', 'is null');
  end if;
  if check_batch.batch not between 1 and 10000 then
    perform registry.invalid_argument('batch', 'is not between 1 and 10000');
  end if;
end
$$;


--
-- Name: FUNCTION check_batch(batch integer); Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON FUNCTION fleet.check_batch(batch integer) IS 'Internal: raises INVALID_ARGUMENT unless so many rows can be done at once.';


--
-- Name: compare_registry(jsonb); Type: FUNCTION; Schema: fleet; Owner: -
--

CREATE FUNCTION fleet.compare_registry(manifest jsonb) RETURNS fleet.registry_load
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
declare
  current_manifest jsonb;
  load fleet.registry_load;
begin
  -- || '{}': unpacked here once, not wherever it is used.
  select s.revision, coalesce(r.manifest, '{}') || '{}'
  into load.revision, current_manifest
  from registry.state as s
  left join registry.revisions as r on r.revision = s.revision;

  load.added := '[]';
  load.removed := '[]';
  load.changed := '[]';
  load.orphans := '[]';
  load.loaded := compare_registry.manifest <> current_manifest;
  if load.loaded then
    select d.added, d.removed, d.changed
    into load.added, load.removed, load.changed
    from registry.manifest_difference(current_manifest, compare_registry.manifest) as d;
  end if;
  return load;
end
$$;


--
-- Name: FUNCTION compare_registry(manifest jsonb); Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON FUNCTION fleet.compare_registry(manifest jsonb) IS 'Internal: what loading a valid manifest would change, but for orphans; loaded: it is another than the current revision''s.';


--
-- Name: current_cursor(); Type: FUNCTION; Schema: fleet; Owner: -
--

CREATE FUNCTION fleet.current_cursor() RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return concat_ws(
    '.', fleet.feed_end(), '00000000-0000-0000-0000-000000000000', 0,
    coalesce((select r.prunings from fleet.retention as r), 0)
  );
end
$$;


--
-- Name: FUNCTION current_cursor(); Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON FUNCTION fleet.current_cursor() IS 'The cursor of now: behind it fleet.changes_after gives every change that is committed from now on.
And, if transactions are still running that are older, some that were committed shortly before. To take over the state of all workspaces and
then keep it up to date: first get this, then read them, then follow.';


--
-- Name: deprecations(); Type: FUNCTION; Schema: fleet; Owner: -
--

CREATE FUNCTION fleet.deprecations() RETURNS SETOF fleet.deprecation
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return query
    select s.workspace_id, s.runtime, s.model, m.deprecated_at, m.sunset_at, m.successor::text
    from fleet.stored_models(
      array(select distinct d.runtime::text from registry.models as d where d.deprecated_at is not null)
    ) as s
    join registry.models as m on m.runtime = s.runtime and m.model = s.model
    where m.menu_position is not null and m.deprecated_at is not null
    order by m.sunset_at, m.deprecated_at, s.runtime, s.model, s.workspace_id;
end
$$;


--
-- Name: FUNCTION deprecations(); Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON FUNCTION fleet.deprecations() IS 'Every workspace whose model the registry deprecates, those first whose model ends first. A model that cannot be read is not among them.
Errors: ENCRYPTION_KEY_MISSING.';


--
-- Name: describe_orphans(fleet.pair[]); Type: FUNCTION; Schema: fleet; Owner: -
--

CREATE FUNCTION fleet.describe_orphans(pairs fleet.pair[]) RETURNS jsonb
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return (
    with reset as materialized (
      select p.runtime, p.model, chosen.model as reset_model, chosen.model_source as reset_source
      from unnest(describe_orphans.pairs) as p
      cross join lateral fleet.reset_of(p.runtime, p.model) as chosen
    )
    select coalesce(
      jsonb_agg(
        jsonb_build_object(
          'workspace_id', s.workspace_id, 'runtime', s.runtime, 'model', s.model,
          'reset_model', r.reset_model, 'reset_source', r.reset_source
        )
        order by s.workspace_id
      ),
      '[]'
    )
    from fleet.stored_models(array(select distinct p.runtime from unnest(describe_orphans.pairs) as p)) as s
    join reset as r on r.runtime = s.runtime and r.model = s.model
  );
end
$$;


--
-- Name: FUNCTION describe_orphans(pairs fleet.pair[]); Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON FUNCTION fleet.describe_orphans(pairs fleet.pair[]) IS 'Internal: the workspaces that have one of these pairs, and what a reset would give them.';


--
-- Name: feed_end(); Type: FUNCTION; Schema: fleet; Owner: -
--

CREATE FUNCTION fleet.feed_end() RETURNS bigint
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  -- A change that this snapshot does not see is of a transaction whose id is not below the snapshot's xmin, so its
  -- position is not below this (workspace.lock_workspace). What is below it is seen, or was rolled back.
  return (
    select case
      when n.made_in = n.tableoid and n.made_by = n.xmin
        then (n.era << 45) + pg_snapshot_xmin(pg_current_snapshot())::text::bigint
      -- Restored from a dump: all that is there came with it, and the next change begins the next era.
      else (n.era + 1) << 45
    end
    from workspace.numbering as n
  );
end
$$;


--
-- Name: FUNCTION feed_end(); Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON FUNCTION fleet.feed_end() IS 'Internal: where the feed ends for now: no change is ever going to appear below this position.';


--
-- Name: find_orphans(text, uuid, integer); Type: FUNCTION; Schema: fleet; Owner: -
--

CREATE FUNCTION fleet.find_orphans(of_runtime text, after uuid, batch integer) RETURNS SETOF fleet.orphan
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  with_key constant keyring.data_key := keyring.active_key();
  stored record;
  model text;
  pair text;
  place integer;
  found_so_far integer := 0;
  orphan fleet.orphan;

  -- As in fleet.change_batch.
  places jsonb := '{}';
  routable boolean[] := '{}';
  resets workspace.decision[] := '{}';
begin
  -- Row by row, so that the key stays out of queries (see sql/keyring/tables.sql).
  for stored in
    select w.id, w.runtime, s.sealed, s.key_id
    from workspace.workspaces as w
    join workspace.secrets as s on s.workspace_id = w.id and s.key = 'MODEL'
    where (find_orphans.of_runtime is null or w.runtime = find_orphans.of_runtime)
      and w.id >= coalesce(find_orphans.after, '00000000-0000-0000-0000-000000000000')
      and w.id is distinct from find_orphans.after
    order by w.id
  loop
    model := keyring.unseal(with_key, stored.id, 'MODEL', stored.sealed, stored.key_id);
    if model is not null then
      pair := stored.runtime || E'\n' || model;
      place := (places -> pair)::integer;
      if place is null then
        place := cardinality(routable) + 1;
        if place % 1000 = 0 then
          places := '{}';
        end if;
        places := places || jsonb_build_object(pair, place);
        routable := routable || (registry.route(stored.runtime, model, '{}')).routable;
        resets := resets || case when not routable[place] then fleet.reset_of(stored.runtime, model) end;
      end if;
      continue when routable[place];
    end if;

    orphan.workspace_id := stored.id;
    orphan.runtime := stored.runtime;
    orphan.model := model;
    orphan.problem := case when model is null then 'unreadable' else 'not registered' end;
    orphan.reset_model := case when model is not null then resets[place].model end;
    orphan.reset_source := case when model is not null then resets[place].model_source end;
    return next orphan;
    found_so_far := found_so_far + 1;
    exit when found_so_far = find_orphans.batch;
  end loop;
end
$$;


--
-- Name: FUNCTION find_orphans(of_runtime text, after uuid, batch integer); Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON FUNCTION fleet.find_orphans(of_runtime text, after uuid, batch integer) IS 'Internal: the first workspaces, by id, whose model is not routable on their runtime or cannot be read; null arguments mean all.';


--
-- Name: list_workspaces(uuid, integer); Type: FUNCTION; Schema: fleet; Owner: -
--

CREATE FUNCTION fleet.list_workspaces(after uuid DEFAULT NULL::uuid, max_entries integer DEFAULT 100) RETURNS SETOF fleet.workspace_entry
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if list_workspaces.max_entries is null or list_workspaces.max_entries not between 1 and 1000 then
    perform registry.invalid_argument('max_entries', 'is not between 1 and 1000');
  end if;

  return query
    select w.id, w.name, w.runtime::text, w.version, w.created_at, w.updated_at
    from workspace.workspaces as w
    where w.id >= coalesce(list_workspaces.after, '00000000-0000-0000-0000-000000000000')
      and w.id is distinct from list_workspaces.after
    order by w.id
    limit list_workspaces.max_entries;
end
$$;


--
-- Name: FUNCTION list_workspaces(after uuid, max_entries integer); Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON FUNCTION fleet.list_workspaces(after uuid, max_entries integer) IS 'The workspaces by id, without their models, a page at a time.
after: the last id of the page before; null: the first page. max_entries: how many, at most 1000.
Errors: INVALID_ARGUMENT.';


--
-- Name: load_registry(jsonb, text, boolean); Type: FUNCTION; Schema: fleet; Owner: -
--

CREATE FUNCTION fleet.load_registry(manifest jsonb, on_orphan text DEFAULT 'refuse'::text, dry_run boolean DEFAULT false) RETURNS fleet.registry_load
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if load_registry.manifest is null then
    perform registry.invalid_argument('manifest', 'is null');
  end if;
  return fleet.replace_registry(load_registry.manifest, load_registry.on_orphan, load_registry.dry_run, null);
end
$$;


--
-- Name: FUNCTION load_registry(manifest jsonb, on_orphan text, dry_run boolean); Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON FUNCTION fleet.load_registry(manifest jsonb, on_orphan text, dry_run boolean) IS 'Replaces the registry by a manifest, as a new numbered revision, and says what that added, removed and changed.
manifest: the whole registry, see sql/registry/manifest.schema.json. The current manifest again is no new revision.
on_orphan: what becomes of workspaces whose model the manifest leaves unroutable. refuse: nothing is loaded. keep: they keep it, and get
another with the next change_runtime, even to the runtime that they have. reset: they get it at
once, in the same transaction, recorded as changes; if there is nothing for one of them, nothing is loaded.
dry_run: answer, with the orphans, but change nothing (it takes the same lock, unless the manifest is the current one).
The manifest is judged and compared first. Then it waits for all transactions that have decided by the current registry, and new ones
wait for it, until the transaction that calls it ends: give it a transaction of its own, and on a busy server a lock_timeout.
At most 100 problems are listed.
Errors: INVALID_ARGUMENT, REGISTRY_INVALID with the problems and their paths, RUNTIME_IN_USE, REGISTRY_ORPHANS, ISOLATION_UNSUPPORTED,
ENCRYPTION_KEY_MISSING.';


--
-- Name: move(text, text, boolean, text, uuid, integer, uuid[], boolean); Type: FUNCTION; Schema: fleet; Owner: -
--

CREATE FUNCTION fleet.move(from_runtime text, to_runtime text, restore boolean DEFAULT false, request_id text DEFAULT NULL::text, after uuid DEFAULT NULL::uuid, batch integer DEFAULT 1000, among uuid[] DEFAULT NULL::uuid[], dry_run boolean DEFAULT false) RETURNS SETOF fleet.move_entry
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  source constant text collate "C" := registry.clean_text(move.from_runtime, 'from_runtime');
  target constant text collate "C" := registry.clean_text(move.to_runtime, 'to_runtime');
  request constant text collate "C" :=
    case when move.request_id is not null then registry.clean_text(move.request_id, 'request_id') end;
  ids uuid[];
begin
  if source = target then
    perform registry.invalid_argument('to_runtime', 'is from_runtime: see fleet.reset_orphans');
  elsif move.restore is null then
    perform registry.invalid_argument('restore', 'is null');
  end if;
  perform fleet.begin_batch(move.batch, move.dry_run);
  perform registry.require_runtime(source);
  perform registry.require_runtime(target);

  ids := fleet.page_of(move.among, move.after, move.batch);
  if move.among is null then
    ids := array(
      select w.id
      from workspace.workspaces as w
      where w.runtime = source
        and w.id >= coalesce(move.after, '00000000-0000-0000-0000-000000000000')
        and w.id is distinct from move.after
      order by w.id
      limit move.batch
    );
  end if;
  return query
    select m.* from fleet.change_batch(ids, source, target, move.restore, request, move.dry_run) as m;
end
$$;


--
-- Name: FUNCTION move(from_runtime text, to_runtime text, restore boolean, request_id text, after uuid, batch integer, among uuid[], dry_run boolean); Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON FUNCTION fleet.move(from_runtime text, to_runtime text, restore boolean, request_id text, after uuid, batch integer, among uuid[], dry_run boolean) IS 'Switches the workspaces of one runtime to another, as workspace.change_runtime would switch each.
It does a batch of them, in the order of their ids.
from_runtime, to_runtime: the runtimes. restore: as in change_runtime. request_id: the name of this move, recorded with every change; repeated,
it moves no workspace a second time. after: go on after this workspace; null: from the beginning. batch: how many workspaces at most.
among: these workspaces alone, a row for each. dry_run: answer, but change and lock nothing.
Returns a row a workspace, in order; fewer rows than batch: this was the last. One that is refused, or that somebody holds (skipped), stops none
of the others. The next batch goes on after the last row; give every batch a transaction of its own, and come back to those skipped with among.
Errors: INVALID_ARGUMENT, RUNTIME_UNSUPPORTED, REGISTRY_UNAVAILABLE, ENCRYPTION_KEY_MISSING, ISOLATION_UNSUPPORTED.';


--
-- Name: orphans(text); Type: FUNCTION; Schema: fleet; Owner: -
--

CREATE FUNCTION fleet.orphans(runtime text DEFAULT NULL::text) RETURNS SETOF fleet.orphan
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  asked constant text collate "C" :=
    case when orphans.runtime is not null then registry.clean_text(orphans.runtime, 'runtime') end;
begin
  if asked is not null then
    perform registry.require_runtime(asked);
  end if;
  return query select o.* from fleet.find_orphans(asked, null, null) as o;
end
$$;


--
-- Name: FUNCTION orphans(runtime text); Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON FUNCTION fleet.orphans(runtime text) IS 'Every workspace whose model is not routable on its runtime now, or cannot be read, and what fleet.reset_orphans would give it.
runtime: on this runtime alone; null: on all.
Errors: INVALID_ARGUMENT, RUNTIME_UNSUPPORTED, REGISTRY_UNAVAILABLE, ENCRYPTION_KEY_MISSING.';


--
-- Name: overview(); Type: FUNCTION; Schema: fleet; Owner: -
--

CREATE FUNCTION fleet.overview() RETURNS SETOF fleet.overview_entry
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return query
    select w.runtime::text, coalesce(origin.model_source, newest.model_source), count(*)
    from workspace.workspaces as w
    join workspace.changes as newest on newest.workspace_id = w.id and newest.version = w.version
    -- A model that was kept came from an earlier change, if that was not pruned.
    left join lateral (
      select c.model_source
      from workspace.changes as c
      where newest.model_source = 'kept'
        and c.workspace_id = w.id
        and c.model_source <> 'kept'
      order by c.version desc
      limit 1
    ) as origin on true
    group by 1, 2
    order by 1, 2;
end
$$;


--
-- Name: FUNCTION overview(); Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON FUNCTION fleet.overview() IS 'How many workspaces there are on each runtime, by where their model came from.
Every workspace is counted: seconds, where there are millions. Nothing is opened, and nobody has to wait for it.';


--
-- Name: page_of(uuid[], uuid, integer); Type: FUNCTION; Schema: fleet; Owner: -
--

CREATE FUNCTION fleet.page_of(among uuid[], after uuid, batch integer) RETURNS uuid[]
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return array(
    select distinct a.id
    from unnest(page_of.among) as a (id)
    where a.id > page_of.after or (page_of.after is null and a.id is not null)
    order by a.id
    limit page_of.batch
  );
end
$$;


--
-- Name: FUNCTION page_of(among uuid[], after uuid, batch integer); Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON FUNCTION fleet.page_of(among uuid[], after uuid, batch integer) IS 'Internal: the first of these ids that come after this one, in order, each once.';


--
-- Name: parse_cursor(text); Type: FUNCTION; Schema: fleet; Owner: -
--

CREATE FUNCTION fleet.parse_cursor(cursor text) RETURNS fleet.place
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
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
$_$;


--
-- Name: FUNCTION parse_cursor(cursor text); Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON FUNCTION fleet.parse_cursor(cursor text) IS 'Internal: the place that a cursor names; null names the beginning. Raises INVALID_ARGUMENT.';


--
-- Name: prune_changes(timestamp with time zone, integer, text); Type: FUNCTION; Schema: fleet; Owner: -
--

CREATE FUNCTION fleet.prune_changes(before timestamp with time zone, batch integer DEFAULT 1000, cursor text DEFAULT NULL::text) RETURNS fleet.pruning
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  place constant fleet.place := fleet.parse_cursor(prune_changes.cursor);
  replayable_since constant timestamptz := clock_timestamp() - interval '7 days';
  feed_end bigint;
  last_examined fleet.place;
  last_pruned fleet.place;
  examined bigint;
  oldest timestamptz;
  pruning fleet.pruning;
begin
  if prune_changes.before is null then
    perform registry.invalid_argument('before', 'is null');
  end if;
  perform fleet.check_batch(prune_changes.batch);

  -- One at a time. Readers do not wait.
  lock table fleet.retention in share row exclusive mode;

  -- What the feed has not given out yet stays.
  feed_end := fleet.feed_end();
  select p.position, p.workspace_id, p.version, count(*) over (), min(p.changed_at) over ()
  into last_examined.position, last_examined.workspace_id, last_examined.version, examined, oldest
  from (
    select c.position, c.workspace_id, c.version, c.changed_at
    from workspace.changes as c
    where (c.position, c.workspace_id, c.version) > (place.position, place.workspace_id, place.version)
      and c.position < feed_end
    order by c.position, c.workspace_id, c.version
    limit prune_changes.batch
  ) as p
  order by p.position desc, p.workspace_id desc, p.version desc
  limit 1;
  if not found then
    return (0, prune_changes.cursor, true)::fleet.pruning;
  end if;

  with old as materialized (
    select c.workspace_id, c.version
    from workspace.changes as c
    where (c.position, c.workspace_id, c.version) > (place.position, place.workspace_id, place.version)
      and (c.position, c.workspace_id, c.version)
        <= (last_examined.position, last_examined.workspace_id, last_examined.version)
      and c.changed_at < prune_changes.before
      and (c.request_id is null or c.changed_at < replayable_since)
      -- The first keeps the id taken (create_workspace), the last tells how the workspace came to be as it is.
      and c.version > 1
      and exists (
        select
        from workspace.changes as later
        where later.workspace_id = c.workspace_id and later.version > c.version
      )
      -- What choose_model can restore: the last model on each runtime.
      and not (
        c.sealed is not null
        and exists (select from workspace.workspaces as w where w.id = c.workspace_id)
        and not exists (
          select
          from workspace.changes as later
          where later.workspace_id = c.workspace_id
            and later.version > c.version
            and later.runtime = c.runtime
            and later.sealed is not null
        )
      )
    -- What keyring.reseal holds is left to the next run: to wait for it could be a deadlock.
    for update of c skip locked
  ),
  pruned as (
    delete from workspace.changes as c
    using old as o
    where c.workspace_id = o.workspace_id and c.version = o.version
    returning c.position, c.workspace_id, c.version
  )
  select count(*) over (), p.position, p.workspace_id, p.version
  into pruning.pruned, last_pruned.position, last_pruned.workspace_id, last_pruned.version
  from pruned as p
  order by p.position desc, p.workspace_id desc, p.version desc
  limit 1;

  if found then
    insert into fleet.retention as r (prunings, position, workspace_id, version)
    values (1, last_pruned.position, last_pruned.workspace_id, last_pruned.version)
    on conflict (singleton) do update set
      prunings = r.prunings + 1,
      (position, workspace_id, version) = (
        select furthest.position, furthest.workspace_id, furthest.version
        from (
          values (r.position, r.workspace_id, r.version), (excluded.position, excluded.workspace_id, excluded.version)
        ) as furthest (position, workspace_id, version)
        order by furthest.position desc, furthest.workspace_id desc, furthest.version desc
        limit 1
      );
  end if;
  pruning.pruned := coalesce(pruning.pruned, 0);
  pruning.cursor := concat_ws('.', last_examined.position, last_examined.workspace_id, last_examined.version, 0);
  pruning.finished := examined < prune_changes.batch or oldest >= prune_changes.before;
  return pruning;
end
$$;


--
-- Name: FUNCTION prune_changes(before timestamp with time zone, batch integer, cursor text); Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON FUNCTION fleet.prune_changes(before timestamp with time zone, batch integer, cursor text) IS 'Takes old changes out of the history and the feed, one batch.
Call it, each time in a transaction of its own, with the cursor that it returned until it says finished.
before: changes made before this may go. batch: how many changes to look at. cursor: where the batch begins; null: at the beginning.
Kept all the same: the first and the last change of each workspace, the last with a model on each runtime (that is what restore takes), the
answers to a request_id for 7 days, and what fleet.changes_after has not been able to give yet.
A reader of the feed that has not got as far as what was pruned is told so. Readers and writers do not wait for it.
Errors: INVALID_ARGUMENT.';


--
-- Name: recent_changes(integer); Type: FUNCTION; Schema: fleet; Owner: -
--

CREATE FUNCTION fleet.recent_changes(max_entries integer DEFAULT 20) RETURNS SETOF workspace.history_entry
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  with_key constant keyring.data_key := keyring.active_key();
  recorded workspace.changes;
begin
  if recent_changes.max_entries is null or recent_changes.max_entries not between 1 and 1000 then
    perform registry.invalid_argument('max_entries', 'is not between 1 and 1000');
  end if;

  -- Row by row, so that the key stays out of queries (see sql/keyring/tables.sql).
  for recorded in
    select c.*
    from workspace.changes as c
    order by c.position desc, c.workspace_id desc, c.version desc
    limit recent_changes.max_entries
  loop
    return next workspace.entry_of(with_key, recorded);
  end loop;
end
$$;


--
-- Name: FUNCTION recent_changes(max_entries integer); Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON FUNCTION fleet.recent_changes(max_entries integer) IS 'The newest changes of all workspaces, the latest first.
For looking at: what commits late can appear behind what was seen before. To follow them there is fleet.changes_after.
max_entries: how many, at most 1000. Models are opened as workspace.history does: one that cannot be read any more is null.
Errors: ENCRYPTION_KEY_MISSING, INVALID_ARGUMENT.';


--
-- Name: replace_registry(jsonb, text, boolean, bigint); Type: FUNCTION; Schema: fleet; Owner: -
--

CREATE FUNCTION fleet.replace_registry(manifest jsonb, on_orphan text, dry_run boolean, restored_from bigint) RETURNS fleet.registry_load
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
declare
  problems jsonb;
  problems_total bigint;
  content registry.content;
  routable_pairs fleet.pair[];
  orphaned_pairs fleet.pair[];
  in_use jsonb;
  first_orphans jsonb;
  orphans_total bigint;
  ids uuid[];
  loaded_at timestamptz;
  load fleet.registry_load;  -- What is to be answered; loaded: the manifest is another.
begin
  if replace_registry.on_orphan is null
    or replace_registry.on_orphan collate "C" not in ('refuse', 'keep', 'reset')
  then
    perform registry.invalid_argument('on_orphan', 'must be refuse, keep or reset');
  elsif replace_registry.dry_run is null then
    perform registry.invalid_argument('dry_run', 'is null');
  end if;

  perform registry.require_read_committed();

  -- Before the lock all that takes long: nobody has to wait until the manifest is judged, compared and taken apart.
  select
    jsonb_agg(jsonb_build_object('path', found.path, 'problem', found.problem)) filter (where found.place <= 100),
    count(*)
  into problems, problems_total
  from registry.manifest_problems(replace_registry.manifest) with ordinality as found (path, problem, place);
  if problems_total > 0 then
    raise exception using
      errcode = 'PT422',
      message = format('The manifest has %s problem(s).', problems_total),
      detail = jsonb_build_object('code', 'REGISTRY_INVALID', 'problems', problems, 'problems_total', problems_total),
      hint = 'Mend them all and load again. Nothing was changed.';
  end if;

  load := fleet.compare_registry(replace_registry.manifest);
  if not load.loaded then
    return load;
  end if;
  content := registry.manifest_content(replace_registry.manifest);

  -- Waits for everybody who decides by the current registry, and keeps them out until the end (registry.hold). Those who
  -- only read are not disturbed.
  lock table registry.state in exclusive mode;

  -- Another load came first.
  if not exists (select from registry.state as s where s.revision = load.revision) then
    load := fleet.compare_registry(replace_registry.manifest);
    if not load.loaded then
      return load;
    end if;
  end if;

  select jsonb_agg(jsonb_build_object('runtime', used.runtime, 'workspaces', used.workspaces) order by used.runtime)
  into in_use
  from (
    select w.runtime, count(*) as workspaces
    from workspace.workspaces as w
    where not exists (
      select from unnest(content.runtimes) as kept where kept.name = w.runtime
    )
    group by w.runtime
  ) as used;
  if in_use is not null then
    raise exception using
      errcode = 'PT409',
      message = 'The manifest removes a runtime that workspaces use.',
      detail = jsonb_build_object('code', 'RUNTIME_IN_USE', 'runtimes', in_use),
      hint = 'Keep the runtime in the manifest until its workspaces have another. Nothing was changed.';
  end if;

  -- A fleet has many workspaces and few distinct pairs: each pair is judged once.
  routable_pairs := array(
    select row(s.runtime, s.model)::fleet.pair
    from (select distinct s.runtime, s.model from fleet.stored_models() as s where s.model is not null) as s
    where (registry.route(s.runtime, s.model, '{}')).routable
  );
  begin
    perform registry.replace_registry(content);

    orphaned_pairs := array(
      select row(p.runtime, p.model)::fleet.pair
      from unnest(routable_pairs) as p
      where not (registry.route(p.runtime, p.model, '{}')).routable
    );
    if orphaned_pairs <> '{}' then
      load.orphans := fleet.describe_orphans(orphaned_pairs);
    end if;

    if replace_registry.dry_run then
      raise exception using errcode = 'RRDRY', message = 'Dry run: taken back.';
    end if;
  exception
    when sqlstate 'RRDRY' then
      load.loaded := false;
      return load;
  end;

  -- What nothing can be found for is refused with reset, too. Without the models: the server log keeps what an error says.
  if replace_registry.on_orphan <> 'keep' then
    select
      jsonb_agg(o.orphan - array['model', 'reset_model', 'reset_source'] order by o.place) filter (where o.place <= 50),
      count(*)
    into first_orphans, orphans_total
    from (
      select item.orphan, row_number() over (order by item.place) as place
      from jsonb_array_elements(load.orphans) with ordinality as item (orphan, place)
      where replace_registry.on_orphan = 'refuse' or item.orphan ->> 'reset_model' is null
    ) as o;
  end if;
  if orphans_total > 0 then
    raise exception using
      errcode = 'PT409',
      message = format('The manifest orphans the model of %s workspace(s).', orphans_total),
      detail = jsonb_build_object(
        'code', 'REGISTRY_ORPHANS',
        'orphans', first_orphans,
        'orphans_total', orphans_total
      ),
      hint = 'Keep what they use in the manifest, or give them another model first. Nothing was changed.';
  end if;

  if load.orphans <> '[]' and replace_registry.on_orphan = 'reset' then
    perform keyring.hold();
    ids := array(
      select w.id
      from workspace.workspaces as w
      join jsonb_array_elements(load.orphans) as o on (o ->> 'workspace_id')::uuid = w.id
      order by w.id
      for no key update of w
    );
    perform from fleet.change_batch(ids, null, null, false, null, false) as m;
  end if;

  -- Every load updates this row: that is what fails a caller whose snapshot is older (registry.hold).
  load.revision := load.revision + 1;
  loaded_at := clock_timestamp();
  update registry.state as s set revision = load.revision;
  insert into registry.revisions (revision, manifest, loaded_at, loaded_by, restored_from)
  values (load.revision, replace_registry.manifest, loaded_at, workspace.actor(), replace_registry.restored_from);
  return load;
end
$$;


--
-- Name: FUNCTION replace_registry(manifest jsonb, on_orphan text, dry_run boolean, restored_from bigint); Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON FUNCTION fleet.replace_registry(manifest jsonb, on_orphan text, dry_run boolean, restored_from bigint) IS 'Internal: makes a valid manifest the registry, as a new revision, and says what that changes and which workspaces it orphans.';


--
-- Name: require_revision(bigint); Type: FUNCTION; Schema: fleet; Owner: -
--

CREATE FUNCTION fleet.require_revision(revision bigint) RETURNS jsonb
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  manifest jsonb;
begin
  if require_revision.revision is null then
    perform registry.invalid_argument('revision', 'is null');
  end if;
  -- || '{}': unpacked here once, not wherever it is used.
  select r.manifest || '{}' into manifest from registry.revisions as r where r.revision = require_revision.revision;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('The registry has no revision %s.', require_revision.revision),
      detail = jsonb_build_object('code', 'REVISION_NOT_FOUND', 'revision', require_revision.revision),
      hint = 'Take one that fleet.revisions lists.';
  end if;
  return manifest;
end
$$;


--
-- Name: FUNCTION require_revision(revision bigint); Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON FUNCTION fleet.require_revision(revision bigint) IS 'Internal: a revision''s manifest. Raises INVALID_ARGUMENT or REVISION_NOT_FOUND.';


--
-- Name: reset_of(text, text); Type: FUNCTION; Schema: fleet; Owner: -
--

CREATE FUNCTION fleet.reset_of(runtime text, model text) RETURNS workspace.decision
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  orphan workspace.snapshot;
begin
  orphan.runtime := reset_of.runtime;
  orphan.model := reset_of.model;
  orphan.model_is_unreadable := false;
  return workspace.choose_model(orphan, reset_of.runtime, null, false);
exception
  when sqlstate 'PT422' then
    return null;  -- NO_DEFAULT_MODEL
end
$$;


--
-- Name: FUNCTION reset_of(runtime text, model text); Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON FUNCTION fleet.reset_of(runtime text, model text) IS 'Internal: what workspace.change_runtime would decide for a workspace with this model on this runtime; null where it would refuse.';


--
-- Name: reset_orphans(text, text, uuid, integer, uuid[], boolean); Type: FUNCTION; Schema: fleet; Owner: -
--

CREATE FUNCTION fleet.reset_orphans(runtime text DEFAULT NULL::text, request_id text DEFAULT NULL::text, after uuid DEFAULT NULL::uuid, batch integer DEFAULT 1000, among uuid[] DEFAULT NULL::uuid[], dry_run boolean DEFAULT false) RETURNS SETOF fleet.move_entry
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  source constant text collate "C" :=
    case when reset_orphans.runtime is not null then registry.clean_text(reset_orphans.runtime, 'runtime') end;
  request constant text collate "C" :=
    case when reset_orphans.request_id is not null then registry.clean_text(reset_orphans.request_id, 'request_id') end;
  ids uuid[];
begin
  perform fleet.begin_batch(reset_orphans.batch, reset_orphans.dry_run);
  if source is not null then
    perform registry.require_runtime(source);
  end if;

  ids := fleet.page_of(reset_orphans.among, reset_orphans.after, reset_orphans.batch);
  if reset_orphans.among is null then
    ids := array(
      select o.workspace_id from fleet.find_orphans(source, reset_orphans.after, reset_orphans.batch) as o
    );
  end if;
  return query
    select m.* from fleet.change_batch(ids, source, null, false, request, reset_orphans.dry_run) as m;
end
$$;


--
-- Name: FUNCTION reset_orphans(runtime text, request_id text, after uuid, batch integer, among uuid[], dry_run boolean); Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON FUNCTION fleet.reset_orphans(runtime text, request_id text, after uuid, batch integer, among uuid[], dry_run boolean) IS 'Gives orphaned workspaces a model that is registered, as workspace.change_runtime to the runtime that they have would.
That is an equivalent of theirs, or else the runtime''s default. It does a batch of them, in the order of their ids.
runtime: on this runtime alone; null: on all. request_id: the name of this reset, recorded with every change; repeated, it resets no workspace
a second time. after: go on after this workspace; null: from the beginning. batch: how many workspaces at most. among: these workspaces alone,
a row for each, orphaned or not. dry_run: answer, but change and lock nothing.
Returns a row a workspace, in order; fewer rows than batch: this was the last. Workspaces whose model cannot be read, or whose runtime has no
default, are refused and stay as they are.
Errors: INVALID_ARGUMENT, RUNTIME_UNSUPPORTED, REGISTRY_UNAVAILABLE, ENCRYPTION_KEY_MISSING, ISOLATION_UNSUPPORTED.';


--
-- Name: restore_registry(bigint, text, boolean); Type: FUNCTION; Schema: fleet; Owner: -
--

CREATE FUNCTION fleet.restore_registry(revision bigint, on_orphan text DEFAULT 'refuse'::text, dry_run boolean DEFAULT false) RETURNS fleet.registry_load
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return fleet.replace_registry(
    fleet.require_revision(restore_registry.revision),
    restore_registry.on_orphan,
    restore_registry.dry_run,
    restore_registry.revision
  );
end
$$;


--
-- Name: FUNCTION restore_registry(revision bigint, on_orphan text, dry_run boolean); Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON FUNCTION fleet.restore_registry(revision bigint, on_orphan text, dry_run boolean) IS 'Loads an earlier revision''s manifest again, as a new revision; nothing if it is the current one''s.
revision: its number, see fleet.revisions. on_orphan, dry_run, the result and the locks are those of fleet.load_registry.
Errors: REVISION_NOT_FOUND, and those of fleet.load_registry.';


--
-- Name: revision_manifest(bigint); Type: FUNCTION; Schema: fleet; Owner: -
--

CREATE FUNCTION fleet.revision_manifest(revision bigint DEFAULT NULL::bigint) RETURNS jsonb
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return fleet.require_revision(
    coalesce(revision_manifest.revision, (select s.revision from registry.state as s))
  );
end
$$;


--
-- Name: FUNCTION revision_manifest(revision bigint); Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON FUNCTION fleet.revision_manifest(revision bigint) IS 'The manifest of a revision, as it can be loaded again.
revision: its number, see fleet.revisions; null: the current one.
Errors: REVISION_NOT_FOUND, also where nothing was ever loaded.';


--
-- Name: revisions(); Type: FUNCTION; Schema: fleet; Owner: -
--

CREATE FUNCTION fleet.revisions() RETURNS SETOF fleet.revision
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select
    r.revision,
    r.loaded_at,
    r.loaded_by,
    r.restored_from,
    r.revision = s.revision,
    jsonb_array_length(r.manifest -> 'providers'),
    jsonb_array_length(r.manifest -> 'runtimes'),
    (
      select count(distinct (m.runtime, m.model))
      from registry.manifest_models(r.manifest) as m
    )
  from registry.revisions as r
  cross join registry.state as s
  order by r.revision desc
$$;


--
-- Name: FUNCTION revisions(); Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON FUNCTION fleet.revisions() IS 'Every registry that was ever loaded, the newest first.';


--
-- Name: stored_models(text[]); Type: FUNCTION; Schema: fleet; Owner: -
--

CREATE FUNCTION fleet.stored_models(of_runtimes text[] DEFAULT NULL::text[]) RETURNS SETOF fleet.stored_model
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  with_key constant keyring.data_key := keyring.active_key();
  stored record;
begin
  -- Row by row, so that the key stays out of queries (see sql/keyring/tables.sql).
  for stored in
    select w.id, w.runtime, s.sealed, s.key_id
    from workspace.workspaces as w
    join workspace.secrets as s on s.workspace_id = w.id and s.key = 'MODEL'
    where stored_models.of_runtimes is null or w.runtime = any (stored_models.of_runtimes)
  loop
    return next (
      stored.id, stored.runtime, keyring.unseal(with_key, stored.id, 'MODEL', stored.sealed, stored.key_id)
    )::fleet.stored_model;
  end loop;
end
$$;


--
-- Name: FUNCTION stored_models(of_runtimes text[]); Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON FUNCTION fleet.stored_models(of_runtimes text[]) IS 'Internal: every workspace that has a model, on these runtimes (null: on all), and the model.';


--
-- Name: active_key(); Type: FUNCTION; Schema: keyring; Owner: -
--

CREATE FUNCTION keyring.active_key() RETURNS keyring.data_key
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  stored keyring.keys;
begin
  select k.* into stored from keyring.keys as k where k.state = 'active';
  return keyring.open_key(stored, is_needed => true);
end
$$;


--
-- Name: FUNCTION active_key(); Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON FUNCTION keyring.active_key() IS 'Internal: the key that seals, opened; null if the keyring has none. Raises ENCRYPTION_KEY_MISSING.';


--
-- Name: add_key(text); Type: FUNCTION; Schema: keyring; Owner: -
--

CREATE FUNCTION keyring.add_key(kek text) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  moment constant timestamptz := clock_timestamp();
  key keyring.data_key;
  wrapped bytea;
begin
  update keyring.keys as k set state = 'retired', retired_at = moment where k.state = 'active';

  key.key_id := nextval('keyring.key_ids');
  key.secret := keyring.random_key();
  wrapped := keyring.wrap(key, add_key.kek);
  insert into keyring.keys (id, wrapped, state, created_at)
  values (key.key_id, wrapped, 'active', moment);
  return key.key_id;
end
$$;


--
-- Name: FUNCTION add_key(kek text); Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON FUNCTION keyring.add_key(kek text) IS 'Internal: a new active key, wrapped by the KEK; the one before is retired.';


--
-- Name: any_key(integer); Type: FUNCTION; Schema: keyring; Owner: -
--

CREATE FUNCTION keyring.any_key(key_id integer) RETURNS keyring.data_key
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  stored keyring.keys;
begin
  select k.* into stored from keyring.keys as k where k.id = any_key.key_id;
  return keyring.open_key(stored, is_needed => false);
end
$$;


--
-- Name: FUNCTION any_key(key_id integer); Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON FUNCTION keyring.any_key(key_id integer) IS 'Internal: a key of the keyring, active or retired, opened; null if there is none or the KEK does not fit.';


--
-- Name: encrypt(text, text); Type: FUNCTION; Schema: keyring; Owner: -
--

CREATE FUNCTION keyring.encrypt(value text, key text) RETURNS bytea
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return pgcrypto.pgp_sym_encrypt(encrypt.value, encrypt.key, 's2k-mode=1, cipher-algo=aes256, compress-algo=0');
end
$$;


--
-- Name: FUNCTION encrypt(value text, key text); Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON FUNCTION keyring.encrypt(value text, key text) IS 'Internal: an OpenPGP message, as gpg --decrypt opens it.';


--
-- Name: hold(); Type: FUNCTION; Schema: keyring; Owner: -
--

CREATE FUNCTION keyring.hold() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  -- Held to the end of the transaction, against the exclusive lock of those who change the keys: a key cannot be removed
  -- while somebody seals with it.
  lock table keyring.keys in row share mode;

  -- As in registry.hold: a snapshot from before a change of keys would seal with a key that may be gone.
  if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
    perform from keyring.keys as k for share;
  end if;
end
$$;


--
-- Name: FUNCTION hold(); Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON FUNCTION keyring.hold() IS 'Internal: keeps the keys as they are until the transaction ends. Raises 40001 if the transaction''s snapshot is older than they are.';


--
-- Name: init(); Type: FUNCTION; Schema: keyring; Owner: -
--

CREATE FUNCTION keyring.init() RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  kek constant text := keyring.strong_kek('runtime_registry.kek');
begin
  perform registry.require_read_committed();
  -- There is no key yet on which a snapshot from before it could fail (keyring.hold), to go on storing plain values: it
  -- fails on this row instead (registry.hold).
  update registry.state as s set revision = s.revision;
  perform keyring.lock();
  if exists (select from keyring.keys as k) then
    raise exception using
      errcode = 'PT409',
      message = 'The keyring has keys already.',
      detail = jsonb_build_object('code', 'KEYRING_EXISTS'),
      hint = 'Call keyring.rotate to make a new one.';
  end if;
  return keyring.add_key(kek);
end
$$;


--
-- Name: FUNCTION init(); Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON FUNCTION keyring.init() IS 'Turns encryption on by making the first key.
It is wrapped by the session''s key-encryption key: the setting runtime_registry.kek, 32 random bytes in base64 or hex. Returns the key''s id.
From now on every model and secret that is set is sealed, and sessions that write or read them need the setting. What is stored plain stays so,
also in rows of the history that repeat it, until keyring.reseal seals it.
Errors: ENCRYPTION_KEY_MISSING, INVALID_ARGUMENT (the setting is no such key), KEYRING_EXISTS, ISOLATION_UNSUPPORTED.';


--
-- Name: is_whole(bytea); Type: FUNCTION; Schema: keyring; Owner: -
--

CREATE FUNCTION keyring.is_whole(message bytea) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION is_whole(message bytea); Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON FUNCTION keyring.is_whole(message bytea) IS 'Internal: whether a message that opened ends where it says.';


--
-- Name: key_missing(text); Type: FUNCTION; Schema: keyring; Owner: -
--

CREATE FUNCTION keyring.key_missing(problem text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  raise exception using
    errcode = 'PT500',
    message = format('The session''s key-encryption key %s.', key_missing.problem),
    detail = jsonb_build_object('code', 'ENCRYPTION_KEY_MISSING'),
    hint = 'Give the session the setting runtime_registry.kek. Nothing was changed.';
end
$$;


--
-- Name: FUNCTION key_missing(problem text); Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON FUNCTION keyring.key_missing(problem text) IS 'Internal: raises ENCRYPTION_KEY_MISSING.';


--
-- Name: lock(); Type: FUNCTION; Schema: keyring; Owner: -
--

CREATE FUNCTION keyring.lock() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  perform registry.require_read_committed();

  -- Waits for everybody who is sealing (keyring.hold) and keeps new ones out to the end of the transaction. Who only reads
  -- is not disturbed.
  lock table keyring.keys in exclusive mode;
end
$$;


--
-- Name: FUNCTION lock(); Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON FUNCTION keyring.lock() IS 'Internal: keeps everybody else from sealing, and from changing the keys, until the transaction ends. Raises ISOLATION_UNSUPPORTED.';


--
-- Name: open(bytea, text, text); Type: FUNCTION; Schema: keyring; Owner: -
--

CREATE FUNCTION keyring.open(message bytea, key text, label text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  opened text;
begin
  opened := pgcrypto.pgp_sym_decrypt(open.message, open.key);
  -- A short message, and most are, says in one byte how long it is: that needs no call.
  return case when starts_with(opened, open.label) and (
    octet_length(open.message) < 208 and get_byte(open.message, 15) = octet_length(open.message) - 16
    or keyring.is_whole(open.message)
  ) then
    substr(opened, length(open.label) + 1)
  end;
exception
  -- Why it does not open is nobody's business (it would be an oracle), and the error could carry bytes into the log.
  when external_routine_invocation_exception or character_not_in_repertoire or untranslatable_character
    or invalid_parameter_value or data_corrupted or array_subscript_error then
    return null;
end
$$;


--
-- Name: FUNCTION open(message bytea, key text, label text); Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON FUNCTION keyring.open(message bytea, key text, label text) IS 'Internal: what stands after the label in what keyring.encrypt was given; null for any other bytes, key or label.';


--
-- Name: keys; Type: TABLE; Schema: keyring; Owner: -
--

CREATE TABLE keyring.keys (
    id integer NOT NULL,
    wrapped bytea NOT NULL,
    state text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    retired_at timestamp with time zone
);


--
-- Name: TABLE keys; Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON TABLE keyring.keys IS 'The data keys, wrapped by the KEK. One is active and seals; retired ones only open.';


--
-- Name: COLUMN keys.wrapped; Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON COLUMN keyring.keys.wrapped IS 'The data key with its id, sealed with the KEK: proof that a KEK fits.';


--
-- Name: COLUMN keys.state; Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON COLUMN keyring.keys.state IS 'active or retired.';


--
-- Name: open_key(keyring.keys, boolean); Type: FUNCTION; Schema: keyring; Owner: -
--

CREATE FUNCTION keyring.open_key(stored keyring.keys, is_needed boolean) RETURNS keyring.data_key
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  key keyring.data_key;
begin
  if stored.id is null then
    return null;
  end if;
  key := keyring.unwrap(stored.id, stored.wrapped, current_setting('runtime_registry.kek', true));
  -- While the KEK is being changed (keyring.rewrap), sessions bring the new one along: one of the two fits, before and after.
  if key.key_id is null then
    key := keyring.unwrap(stored.id, stored.wrapped, current_setting('runtime_registry.new_kek', true));
  end if;
  if key.key_id is null and open_key.is_needed then
    perform keyring.session_kek();
    perform keyring.key_missing('does not fit this keyring');
  end if;
  return key;
end
$$;


--
-- Name: FUNCTION open_key(stored keyring.keys, is_needed boolean); Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON FUNCTION keyring.open_key(stored keyring.keys, is_needed boolean) IS 'Internal: a key of the keyring, opened; null for null.
Where the session has no key-encryption key that fits: null too or, if the key is needed, ENCRYPTION_KEY_MISSING.';


--
-- Name: opens(); Type: FUNCTION; Schema: keyring; Owner: -
--

CREATE FUNCTION keyring.opens() RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  perform keyring.active_key();
  return true;
exception
  when sqlstate 'PT500' then
    return false;
end
$$;


--
-- Name: FUNCTION opens(); Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON FUNCTION keyring.opens() IS 'Whether this session can seal and open secrets: the KEK that it brought fits, or the keyring has no key.';


--
-- Name: random_key(); Type: FUNCTION; Schema: keyring; Owner: -
--

CREATE FUNCTION keyring.random_key() RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return encode(pgcrypto.gen_random_bytes(32), 'hex');
end
$$;


--
-- Name: FUNCTION random_key(); Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON FUNCTION keyring.random_key() IS 'Internal: 32 random bytes in hex.';


--
-- Name: reseal(uuid, integer); Type: FUNCTION; Schema: keyring; Owner: -
--

CREATE FUNCTION keyring.reseal(after uuid DEFAULT NULL::uuid, batch integer DEFAULT 1000) RETURNS keyring.reseal_progress
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  with_key keyring.data_key;
  ids uuid[];
  ws uuid;
  progress keyring.reseal_progress := (null, 0, 0, 0);
  counted keyring.reseal_progress;
begin
  if reseal.batch is null or reseal.batch not between 1 and 100000 then
    perform registry.invalid_argument('batch', 'must be between 1 and 100000');
  end if;

  perform keyring.hold();
  with_key := keyring.active_key();
  if with_key.key_id is null then
    return progress;  -- Without a key there is nothing to seal with, and nothing sealed.
  end if;

  -- A deleted workspace is in changes only.
  ids := array(
    select c.workspace_id
    from workspace.changes as c
    where c.workspace_id >= coalesce(reseal.after, '00000000-0000-0000-0000-000000000000')
      and c.workspace_id is distinct from reseal.after
    group by c.workspace_id
    order by c.workspace_id
    limit reseal.batch
  );
  foreach ws in array ids loop
    counted := workspace.reseal_workspace(with_key, ws);
    progress.resealed := progress.resealed + counted.resealed;
    progress.unreadable := progress.unreadable + counted.unreadable;
    progress.skipped := progress.skipped + counted.skipped;
    progress.next_after := ws;
  end loop;
  if cardinality(ids) < reseal.batch then
    progress.next_after := null;
  end if;
  return progress;
end
$$;


--
-- Name: FUNCTION reseal(after uuid, batch integer); Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON FUNCTION keyring.reseal(after uuid, batch integer) IS 'Seals with the active key what is stored plain or under another key, the history too.
It does the next batch of workspaces, in the order of their ids. A workspace that somebody holds is not waited for.
after: go on after this workspace; null: from the beginning. batch: how many workspaces at most.
Returns where to go on (next_after; null: this was the last batch) and how many values were resealed, are unreadable (left as they are), and
how many workspaces were skipped: run through again until none is. Each batch is worth a transaction of its own.
Errors: INVALID_ARGUMENT, ENCRYPTION_KEY_MISSING.';


--
-- Name: reseal_value(keyring.data_key, uuid, text, bytea, integer); Type: FUNCTION; Schema: keyring; Owner: -
--

CREATE FUNCTION keyring.reseal_value(with_key keyring.data_key, ws uuid, name text, sealed bytea, key_id integer) RETURNS keyring.sealed_value
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  value text;
begin
  if reseal_value.key_id is not distinct from with_key.key_id then
    return (reseal_value.sealed, reseal_value.key_id)::keyring.sealed_value;
  end if;
  value := keyring.unseal(with_key, reseal_value.ws, reseal_value.name, reseal_value.sealed, reseal_value.key_id);
  if value is null then
    return null;
  end if;
  return keyring.seal(with_key, reseal_value.ws, reseal_value.name, value);
end
$$;


--
-- Name: FUNCTION reseal_value(with_key keyring.data_key, ws uuid, name text, sealed bytea, key_id integer); Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON FUNCTION keyring.reseal_value(with_key keyring.data_key, ws uuid, name text, sealed bytea, key_id integer) IS 'Internal: a sealed value, sealed by this key; null if it cannot be read.';


--
-- Name: retire(integer); Type: FUNCTION; Schema: keyring; Owner: -
--

CREATE FUNCTION keyring.retire(key_id integer) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  state text;
  used bigint;
begin
  if retire.key_id is null then
    perform registry.invalid_argument('key_id', 'is null');
  end if;

  perform keyring.lock();
  select k.state into state from keyring.keys as k where k.id = retire.key_id;
  if not found then
    raise exception using
      errcode = 'PT404',
      message = format('The keyring has no key %s.', retire.key_id),
      detail = jsonb_build_object('code', 'KEY_NOT_FOUND', 'key_id', retire.key_id),
      hint = 'Call keyring.status to see the keys.';
  end if;
  used := (select count(*) from workspace.key_uses(false) as u where u.key_id = retire.key_id);
  if state = 'active' or used > 0 then
    raise exception using
      errcode = 'PT409',
      message = format('The key %s is in use.', retire.key_id),
      detail = jsonb_build_object('code', 'KEY_IN_USE', 'key_id', retire.key_id, 'state', state, 'values', used),
      hint = 'Make another key active with keyring.rotate, and move to it what this one sealed with keyring.reseal.';
  end if;
  delete from keyring.keys as k where k.id = retire.key_id;
end
$$;


--
-- Name: FUNCTION retire(key_id integer); Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON FUNCTION keyring.retire(key_id integer) IS 'Removes a key that seals nothing any more. What an older backup holds under it stays readable only with that backup''s keyring.
key_id: the key.
Errors: INVALID_ARGUMENT, KEY_NOT_FOUND, KEY_IN_USE (it is active, or a secret or the history refers to it),
ISOLATION_UNSUPPORTED (only at READ COMMITTED is it seen who refers to it).';


--
-- Name: rewrap(); Type: FUNCTION; Schema: keyring; Owner: -
--

CREATE FUNCTION keyring.rewrap() RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  kek constant text := keyring.session_kek();
  new_kek constant text := keyring.strong_kek('runtime_registry.new_kek');
  wrapped keyring.keys;
  key keyring.data_key;
  rewrapped bytea;
  keys bigint := 0;
begin
  perform keyring.lock();
  for wrapped in select k.* from keyring.keys as k order by k.id loop
    key := keyring.unwrap(wrapped.id, wrapped.wrapped, kek);
    if key.key_id is null then
      perform keyring.key_missing('does not fit this keyring');
    end if;
    rewrapped := keyring.wrap(key, new_kek);
    update keyring.keys as k set wrapped = rewrapped where k.id = key.key_id;
    keys := keys + 1;
  end loop;
  return keys;
end
$$;


--
-- Name: FUNCTION rewrap(); Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON FUNCTION keyring.rewrap() IS 'Changes the key-encryption key.
It opens every key with the setting runtime_registry.kek and wraps it with runtime_registry.new_kek (32 random bytes in base64 or hex). No
secret is touched. Returns how many keys there are.
All or nothing. Sessions that have both settings work before and after, so nobody needs to stop: give them both, rewrap, then give them the new
one as runtime_registry.kek. A KEK is a setting, never an argument: arguments end up in logs.
Errors: ENCRYPTION_KEY_MISSING, INVALID_ARGUMENT, ISOLATION_UNSUPPORTED.';


--
-- Name: rotate(); Type: FUNCTION; Schema: keyring; Owner: -
--

CREATE FUNCTION keyring.rotate() RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  kek constant text := keyring.session_kek();
  active keyring.keys;
  opened keyring.data_key;
begin
  perform keyring.lock();
  select k.* into active from keyring.keys as k where k.state = 'active';
  if not found then
    raise exception using
      errcode = 'PT409',
      message = 'The keyring has no key to rotate.',
      detail = jsonb_build_object('code', 'KEYRING_EMPTY'),
      hint = 'Call keyring.init to make the first one.';
  end if;

  -- This very KEK, not runtime_registry.new_kek: one KEK wraps all keys.
  opened := keyring.unwrap(active.id, active.wrapped, kek);
  if opened.key_id is null then
    perform keyring.key_missing('does not fit this keyring');
  end if;
  return keyring.add_key(kek);
end
$$;


--
-- Name: FUNCTION rotate(); Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON FUNCTION keyring.rotate() IS 'Makes a new active key and retires the one before, which goes on opening what it sealed. Returns the new key''s id.
Call keyring.reseal until it is done, then keyring.retire for the old key.
Errors: ENCRYPTION_KEY_MISSING, KEYRING_EMPTY, ISOLATION_UNSUPPORTED.';


--
-- Name: seal(keyring.data_key, uuid, text, text); Type: FUNCTION; Schema: keyring; Owner: -
--

CREATE FUNCTION keyring.seal(with_key keyring.data_key, ws uuid, name text, value text) RETURNS keyring.sealed_value
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if with_key.key_id is null then
    return (convert_to(seal.value, 'UTF8'), null)::keyring.sealed_value;
  end if;
  -- Whose secret it is stands inside the message, before the value: sealed bytes that are moved to another row or name do
  -- not open. A name has no line break, so no other workspace and name make the same first line.
  return (
    pgcrypto.pgp_sym_encrypt(
      seal.ws || ' ' || seal.name || E'\n' || seal.value,
      with_key.secret,
      's2k-mode=1, cipher-algo=aes256, compress-algo=0'
    ),
    with_key.key_id
  )::keyring.sealed_value;
end
$$;


--
-- Name: FUNCTION seal(with_key keyring.data_key, ws uuid, name text, value text); Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON FUNCTION keyring.seal(with_key keyring.data_key, ws uuid, name text, value text) IS 'Internal: the bytes to store for a workspace''s secret of this name, sealed with the key; plain without one.';


--
-- Name: seal_all(keyring.data_key, uuid[], text, text[]); Type: FUNCTION; Schema: keyring; Owner: -
--

CREATE FUNCTION keyring.seal_all(with_key keyring.data_key, ws uuid[], name text, vals text[]) RETURNS bytea[]
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  secret constant text := with_key.secret;
  label constant text := ' ' || seal_all.name || E'\n';
  sealed bytea[] := '{}';
begin
  if with_key.key_id is null then
    return array(
      select convert_to(v.val, 'UTF8') from unnest(seal_all.vals) with ordinality as v (val, place) order by v.place
    );
  end if;
  for place in 1 .. cardinality(ws) loop
    sealed := sealed || pgcrypto.pgp_sym_encrypt(
      ws[place] || label || vals[place], secret, 's2k-mode=1, cipher-algo=aes256, compress-algo=0'
    );
  end loop;
  return sealed;
end
$$;


--
-- Name: FUNCTION seal_all(with_key keyring.data_key, ws uuid[], name text, vals text[]); Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON FUNCTION keyring.seal_all(with_key keyring.data_key, ws uuid[], name text, vals text[]) IS 'Internal: what keyring.seal makes of each workspace''s value; null for null.';


--
-- Name: session_kek(text); Type: FUNCTION; Schema: keyring; Owner: -
--

CREATE FUNCTION keyring.session_kek(setting text DEFAULT 'runtime_registry.kek'::text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  kek constant text := current_setting(session_kek.setting, true);
begin
  if kek is null or kek = '' then
    perform keyring.key_missing(format('is not set (%s)', session_kek.setting));
  end if;
  return kek;
end
$$;


--
-- Name: FUNCTION session_kek(setting text); Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON FUNCTION keyring.session_kek(setting text) IS 'Internal: the key-encryption key that the session brought. Raises ENCRYPTION_KEY_MISSING.';


--
-- Name: status(boolean); Type: FUNCTION; Schema: keyring; Owner: -
--

CREATE FUNCTION keyring.status(verify boolean DEFAULT false) RETURNS SETOF keyring.status_entry
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if status.verify is null then
    perform registry.invalid_argument('verify', 'is null');
  end if;

  return query
    select
      coalesce(k.id, u.key_id),
      case when k.id is null and u.key_id is null then 'plain' else coalesce(k.state, 'missing') end,
      k.created_at,
      k.retired_at,
      coalesce(sum(u.secrets), 0)::bigint,
      coalesce(sum(u.history), 0)::bigint,
      case when status.verify then coalesce(sum(u.unreadable), 0)::bigint end
    from keyring.keys as k
    full join workspace.key_uses(status.verify) as u on u.key_id = k.id
    group by k.id, u.key_id, k.state, k.created_at, k.retired_at
    order by 1 nulls first;
end
$$;


--
-- Name: FUNCTION status(verify boolean); Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON FUNCTION keyring.status(verify boolean) IS 'The keys, and how many secrets and models in the history each of them seals; never a value.
verify: open every value too and count those that do not open; this needs the session''s key-encryption key.
It reads all that is stored.
Errors: INVALID_ARGUMENT; ENCRYPTION_KEY_MISSING with verify.';


--
-- Name: strong_kek(text); Type: FUNCTION; Schema: keyring; Owner: -
--

CREATE FUNCTION keyring.strong_kek(setting text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  kek constant text := keyring.session_kek(strong_kek.setting);
  bytes bytea;
begin
  begin
    bytes := decode(kek, case when length(kek) = 64 then 'hex' else 'base64' end);
  exception
    when invalid_parameter_value then
      null;  -- The error would show the KEK.
  end;
  -- No S2K could save a passphrase: the messages are made without iterations.
  if octet_length(bytes) is distinct from 32 then
    raise exception using
      errcode = 'PT400',
      message = format('The setting %s is no key-encryption key.', strong_kek.setting),
      detail = jsonb_build_object(
        'code', 'INVALID_ARGUMENT',
        'argument', strong_kek.setting,
        'problem', 'must be 32 random bytes in base64 or hex'
      ),
      hint = 'Run openssl rand -base64 32 to make one.';
  end if;
  return kek;
end
$$;


--
-- Name: FUNCTION strong_kek(setting text); Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON FUNCTION keyring.strong_kek(setting text) IS 'Internal: the session''s KEK if it has the form of one. Raises ENCRYPTION_KEY_MISSING or INVALID_ARGUMENT.';


--
-- Name: unlock(keyring.keys, boolean, uuid, text, bytea, integer); Type: FUNCTION; Schema: keyring; Owner: -
--

CREATE FUNCTION keyring.unlock(active keyring.keys, key_is_needed boolean, ws uuid, name text, sealed bytea, key_id integer) RETURNS keyring.unlocked
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  key_label constant text := 'runtime-registry key ' || active.id || E'\n';
  label constant text := unlock.ws || ' ' || unlock.name || E'\n';
  with_key keyring.data_key;
  opened_key text;
  opened text;
begin
  -- Nearly always the active key sealed the value, both messages are short, and both open: so they are opened here, for
  -- the six calls below cost a twentieth of a whole change. Whatever is not so is left to keyring.open.
  if active.id = unlock.key_id then
    begin
      if octet_length(active.wrapped) < 208
        and octet_length(unlock.sealed) < 208
        and get_byte(active.wrapped, 15) = octet_length(active.wrapped) - 16
        and get_byte(unlock.sealed, 15) = octet_length(unlock.sealed) - 16
      then
        opened_key := pgcrypto.pgp_sym_decrypt(active.wrapped, current_setting('runtime_registry.kek', true));
        if starts_with(opened_key, key_label) then
          with_key := (active.id, substr(opened_key, length(key_label) + 1));
          opened := pgcrypto.pgp_sym_decrypt(unlock.sealed, with_key.secret);
          if starts_with(opened, label) then
            return (with_key, substr(opened, length(label) + 1))::keyring.unlocked;
          end if;
        end if;
      end if;
    exception
      when external_routine_invocation_exception or character_not_in_repertoire or untranslatable_character
        or invalid_parameter_value or data_corrupted or array_subscript_error then
    end;
  end if;

  with_key := keyring.open_key(active, unlock.key_is_needed);
  if unlock.sealed is not null then
    opened := keyring.unseal(with_key, unlock.ws, unlock.name, unlock.sealed, unlock.key_id);
  else
    opened := null;
  end if;
  return (with_key, opened)::keyring.unlocked;
end
$$;


--
-- Name: FUNCTION unlock(active keyring.keys, key_is_needed boolean, ws uuid, name text, sealed bytea, key_id integer); Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON FUNCTION keyring.unlock(active keyring.keys, key_is_needed boolean, ws uuid, name text, sealed bytea, key_id integer) IS 'Internal: a key of the keyring, opened as by keyring.open_key, and the value of a workspace''s secret of this name, as by keyring.unseal.';


--
-- Name: unseal(keyring.data_key, uuid, text, bytea, integer); Type: FUNCTION; Schema: keyring; Owner: -
--

CREATE FUNCTION keyring.unseal(with_key keyring.data_key, ws uuid, name text, sealed bytea, key_id integer) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  fitting keyring.data_key := with_key;
begin
  if unseal.key_id is null then
    begin
      return convert_from(unseal.sealed, 'UTF8');
    exception
      when character_not_in_repertoire then
        return null;
    end;
  end if;
  if unseal.key_id is distinct from fitting.key_id then
    fitting := keyring.any_key(unseal.key_id);
  end if;
  return keyring.open(unseal.sealed, fitting.secret, unseal.ws || ' ' || unseal.name || E'\n');
end
$$;


--
-- Name: FUNCTION unseal(with_key keyring.data_key, ws uuid, name text, sealed bytea, key_id integer); Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON FUNCTION keyring.unseal(with_key keyring.data_key, ws uuid, name text, sealed bytea, key_id integer) IS 'Internal: the value of a workspace''s secret of this name; null if these bytes cannot be read as that.
with_key: the key to try first; another key of the keyring is fetched by its id.';


--
-- Name: unseal_all(keyring.data_key, uuid[], text, bytea[], integer[]); Type: FUNCTION; Schema: keyring; Owner: -
--

CREATE FUNCTION keyring.unseal_all(with_key keyring.data_key, ws uuid[], name text, sealed bytea[], key_ids integer[]) RETURNS text[]
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  own_key_id constant integer := with_key.key_id;
  secret constant text := with_key.secret;
  suffix constant text := ' ' || unseal_all.name || E'\n';
  label text;
  opened text;
  vals text[] := '{}';
  all_opened boolean := true;
  other integer;
begin
  begin
    for place in 1 .. cardinality(ws) loop
      label := ws[place] || suffix;
      opened := case when key_ids[place] = own_key_id then pgcrypto.pgp_sym_decrypt(sealed[place], secret) end;
      -- As keyring.open.
      vals := vals || case when starts_with(opened, label) then
        case when octet_length(sealed[place]) < 208 and get_byte(sealed[place], 15) = octet_length(sealed[place]) - 16
          or keyring.is_whole(sealed[place])
        then
          substr(opened, length(label) + 1)
        end
      end;
    end loop;
  exception
    when external_routine_invocation_exception or character_not_in_repertoire or untranslatable_character
      or invalid_parameter_value or data_corrupted or array_subscript_error then
      vals := array_fill(null::text, array[cardinality(ws)]);
      all_opened := false;
  end;

  -- What another key sealed, or none. And all of them where something did not open: plpgsql would run the expression above
  -- as a query now (see sql/keyring/tables.sql).
  for other in
    select n.place
    from unnest(unseal_all.sealed, unseal_all.key_ids) with ordinality as n (sealed, key_id, place)
    where n.sealed is not null and (not all_opened or (n.key_id = own_key_id) is not true)
  loop
    vals[other] := keyring.unseal(with_key, ws[other], unseal_all.name, sealed[other], key_ids[other]);
  end loop;
  return vals;
end
$$;


--
-- Name: FUNCTION unseal_all(with_key keyring.data_key, ws uuid[], name text, sealed bytea[], key_ids integer[]); Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON FUNCTION keyring.unseal_all(with_key keyring.data_key, ws uuid[], name text, sealed bytea[], key_ids integer[]) IS 'Internal: what keyring.unseal reads from each workspace''s bytes; null where there are none.';


--
-- Name: unwrap(integer, bytea, text); Type: FUNCTION; Schema: keyring; Owner: -
--

CREATE FUNCTION keyring.unwrap(key_id integer, wrapped bytea, kek text) RETURNS keyring.data_key
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  secret constant text := keyring.open(unwrap.wrapped, unwrap.kek, format(E'runtime-registry key %s\n', unwrap.key_id));
begin
  return (case when secret is not null then unwrap.key_id end, secret)::keyring.data_key;
end
$$;


--
-- Name: FUNCTION unwrap(key_id integer, wrapped bytea, kek text); Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON FUNCTION keyring.unwrap(key_id integer, wrapped bytea, kek text) IS 'Internal: a wrapped data key, opened; all null if the KEK does not fit.';


--
-- Name: wrap(keyring.data_key, text); Type: FUNCTION; Schema: keyring; Owner: -
--

CREATE FUNCTION keyring.wrap(key keyring.data_key, kek text) RETURNS bytea
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return keyring.encrypt(format(E'runtime-registry key %s\n%s', key.key_id, key.secret), wrap.kek);
end
$$;


--
-- Name: FUNCTION wrap(key keyring.data_key, kek text); Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON FUNCTION keyring.wrap(key keyring.data_key, kek text) IS 'Internal: a data key, sealed with the KEK.';


--
-- Name: clean_text(text, text); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.clean_text(value text, argument text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION clean_text(value text, argument text); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.clean_text(value text, argument text) IS 'Internal: the value without white space around it; INVALID_ARGUMENT, naming the argument, if it is no legal id or name.';


--
-- Name: default_model(text); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.default_model(runtime text) RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  asked_runtime constant text collate "C" := registry.clean_text(default_model.runtime, 'runtime');
begin
  perform registry.require_runtime(asked_runtime);
  return (select r.default_model from registry.runtimes as r where r.name = asked_runtime);
end
$$;


--
-- Name: FUNCTION default_model(runtime text); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.default_model(runtime text) IS 'The model a runtime falls back to; null if its menu is empty.
It is the manifest''s default_model, else the first id of the menu.
Errors: INVALID_ARGUMENT, RUNTIME_UNSUPPORTED, REGISTRY_UNAVAILABLE.';


--
-- Name: hold(); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.hold() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  -- Held to the end of the transaction. It conflicts with the exclusive lock that a load takes before it writes, and
  -- with nothing else: a pair is never decided on a registry that is being replaced, and a load judges the pairs
  -- that are there only when none is being written. Row locks would have every call write to the same few rows, and
  -- locking the workspace first would deadlock with a load.
  lock table registry.state in row share mode;

  -- Later statements of a READ COMMITTED transaction see what the load that made us wait has committed. Above it they
  -- would decide by the snapshot's registry, so a snapshot older than the current one must fail with 40001.
  if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
    perform from registry.state as s for share;
  end if;
end
$$;


--
-- Name: FUNCTION hold(); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.hold() IS 'Internal: keeps the registry as it is until the transaction ends. Raises 40001 if the transaction''s snapshot is older than the registry.';


--
-- Name: id_problem(jsonb); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.id_problem(value jsonb) RETURNS text
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  id constant text := id_problem.value #>> '{}';
begin
  if jsonb_typeof(id_problem.value) <> 'string' then
    return 'must be a string';
  elsif octet_length(id) <= 255 and registry.trim_text(id) not in (id, '') then
    return 'has white space around it';
  end if;
  return registry.text_problem(case when octet_length(id) <= 255 then registry.trim_text(id) else id end);
end
$$;


--
-- Name: FUNCTION id_problem(value jsonb); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.id_problem(value jsonb) IS 'Internal: what is wrong with an id or name of a manifest; null if nothing.';


--
-- Name: invalid_argument(text, text); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.invalid_argument(argument text, problem text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  raise exception using
    errcode = 'PT400',
    message = format('The argument %s %s.', invalid_argument.argument, invalid_argument.problem),
    detail = jsonb_build_object(
      'code', 'INVALID_ARGUMENT', 'argument', invalid_argument.argument, 'problem', invalid_argument.problem
    ),
    hint = 'Correct the argument and call again. Nothing was changed.';
end
$$;


--
-- Name: FUNCTION invalid_argument(argument text, problem text); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.invalid_argument(argument text, problem text) IS 'Internal: raises INVALID_ARGUMENT.';


--
-- Name: list_models(text); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.list_models(runtime text) RETURNS SETOF registry.model_entry
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  asked_runtime constant text collate "C" := registry.clean_text(list_models.runtime, 'runtime');
begin
  perform registry.require_runtime(asked_runtime);
  return query
    select m.menu_position, m.model::text, m.provider::text, p.billed_to, m.model = r.default_model,
      m.deprecated_at, m.sunset_at, m.successor::text
    from registry.models as m
    join registry.providers as p on p.name = m.provider
    join registry.runtimes as r on r.name = m.runtime
    where m.runtime = asked_runtime and m.menu_position is not null
    order by m.menu_position;
end
$$;


--
-- Name: FUNCTION list_models(runtime text); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.list_models(runtime text) IS 'A runtime''s registered models in order, each with the provider that serves it when no credentials are given.
Errors: INVALID_ARGUMENT, RUNTIME_UNSUPPORTED, REGISTRY_UNAVAILABLE.';


--
-- Name: list_runtimes(); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.list_runtimes() RETURNS SETOF registry.runtime_entry
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select
    r.name,
    r.model_policy,
    r.default_model,
    r.menu_size,
    array(select a.provider::text from registry.arms as a where a.runtime = r.name order by a.position)
  from registry.runtimes as r
  order by r.position
$$;


--
-- Name: FUNCTION list_runtimes(); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.list_runtimes() IS 'Every runtime in the registry, in the manifest''s order, with its default model and providers.';


--
-- Name: look_up(text, text, text); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.look_up(runtime text, model text, previous_runtime text DEFAULT NULL::text) RETURNS registry.finding
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS $$
declare
  finding registry.finding;
begin
  select
    (
      here.model is not null or claimed.provider is not null or (r.model_policy = 'any' and look_up.model is not null),
      coalesce(here.provider, claimed.provider),
      coalesce(here.billed_to, claimed.billed_to),
      here.deprecated_at <= now(),
      here.sunset_at
    )::registry.routing,
    here.is_contested,
    r.default_model,
    (true, standard.provider, standard.billed_to, standard.deprecated_at <= now(), standard.sunset_at)::registry.routing,
    standard.is_contested,
    previous.billed_to,
    previous.is_contested,
    previous.has_equivalents
  into finding
  from registry.runtimes as r
  -- Of the arms that list an id, the first has it on the menu.
  left join registry.models as standard
    on standard.runtime = r.name and standard.model = r.default_model and standard.menu_position is not null
  left join registry.models as previous
    on previous.runtime = look_up.previous_runtime
    and previous.model = look_up.model
    and previous.menu_position is not null
  left join registry.models as here
    on here.runtime = r.name and here.model = look_up.model and here.menu_position is not null
  -- No arm lists it: a prefix or an alias. Within a runtime no two providers overlap (refused at load), so of each kind
  -- only the greatest pattern that is not above the id can claim it: one step down an index, however many there are.
  left join lateral (
    select candidate.provider, candidate.billed_to
    from (
      select false as case_folded, look_up.model collate "C" as id
      union all
      select true, lower(look_up.model collate "C") where r.folds_case
    ) as asked
    cross join lateral (
      select c.pattern, c.is_prefix, c.provider, c.billed_to
      from registry.claims as c
      where c.runtime = r.name and c.case_folded = asked.case_folded and c.pattern <= asked.id
      order by c.pattern desc
      limit 1
    ) as candidate
    where here.model is null
      and case when candidate.is_prefix
        then starts_with(asked.id, candidate.pattern)
        else asked.id = candidate.pattern
      end
  ) as claimed on true
  where r.name = look_up.runtime;
  return finding;
end
$$;


--
-- Name: FUNCTION look_up(runtime text, model text, previous_runtime text); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.look_up(runtime text, model text, previous_runtime text) IS 'Internal: what the registry knows of a model on a runtime, and on the runtime before; all null of a runtime that is not registered.';


--
-- Name: manifest_arms(jsonb); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.manifest_arms(manifest jsonb) RETURNS TABLE(runtime_index bigint, runtime text, arm_index bigint, provider text, models jsonb)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select
    r.runtime_index,
    r.runtime,
    e.place - 1,
    e.item ->> 'provider',
    registry.manifest_array(e.item -> 'models')
  from registry.manifest_runtimes(manifest_arms.manifest) as r
  cross join lateral jsonb_array_elements(r.arms) with ordinality as e (item, place)
  where jsonb_typeof(e.item) = 'object'
$$;


--
-- Name: FUNCTION manifest_arms(manifest jsonb); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.manifest_arms(manifest jsonb) IS 'Internal: the arms of a manifest''s runtimes.';


--
-- Name: manifest_array(jsonb); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.manifest_array(value jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select case when jsonb_typeof(manifest_array.value) = 'array' then manifest_array.value else '[]' end
$$;


--
-- Name: FUNCTION manifest_array(value jsonb); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.manifest_array(value jsonb) IS 'Internal: the value if it is an array, else an empty one.';


--
-- Name: manifest_claims(jsonb); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.manifest_claims(manifest jsonb) RETURNS TABLE(provider text, path text, pattern text, is_prefix boolean, case_sensitive boolean)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select
    p.item ->> 'name',
    format('providers[%s].%s[%s]', p.place - 1, list.key, claim.place - 1),
    case when folds.case_sensitive then claim.item #>> '{}' else lower((claim.item #>> '{}') collate "C") end,
    list.key = 'model_prefixes',
    folds.case_sensitive
  from jsonb_array_elements(registry.manifest_array(manifest_claims.manifest -> 'providers'))
    with ordinality as p (item, place)
  cross join lateral (values (p.item -> 'case_sensitive' is distinct from 'false')) as folds (case_sensitive)
  cross join (values ('model_prefixes'), ('model_aliases')) as list (key)
  cross join lateral jsonb_array_elements(registry.manifest_array(p.item -> list.key))
    with ordinality as claim (item, place)
  where jsonb_typeof(p.item) = 'object' and jsonb_typeof(claim.item) = 'string'
$$;


--
-- Name: FUNCTION manifest_claims(manifest jsonb); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.manifest_claims(manifest jsonb) IS 'Internal: the prefixes and aliases of a manifest''s providers, in lower case where case does not count, and where they stand.';


--
-- Name: manifest_content(jsonb); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.manifest_content(manifest jsonb) RETURNS registry.content
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_nestloop TO 'off'
    AS $$
declare
  content registry.content;
begin
  content.providers := array(
    select row(p.provider, p.provider_index + 1, p.billed_to, p.auth_env, p.case_sensitive)::registry.providers
    from registry.manifest_providers(manifest_content.manifest) as p
  );

  content.arms := array(
    select row(a.runtime, a.arm_index + 1, a.provider)::registry.arms
    from registry.manifest_arms(manifest_content.manifest) as a
  );

  content.equivalents := array(
    select row(e.model, e.group_index + 1)::registry.equivalents
    from registry.manifest_equivalents(manifest_content.manifest) as e
  );

  content.models := array(
    select row(
      m.runtime,
      m.model,
      m.arm_index + 1,
      m.provider,
      case when m.is_first then
        row_number() over (partition by m.runtime, m.is_first order by m.arm_index, m.model_index)
      end,
      coalesce(there.deprecated_at, everywhere.deprecated_at),
      coalesce(there.sunset_at, everywhere.sunset_at),
      coalesce(there.successor, everywhere.successor),
      p.billed_to,
      m.is_contested,
      e.model is not null
    )::registry.models
    from (
      select
        listed.*,
        row_number() over (partition by listed.runtime, listed.model order by listed.arm_index, listed.model_index) = 1
          as is_first,
        min(listed.arm_index) over same_id <> max(listed.arm_index) over same_id as is_contested,
        row_number() over (
          partition by listed.runtime, listed.model, listed.arm_index order by listed.model_index
        ) as occurrence_on_arm
      from (
        select m.runtime collate "C" as runtime, m.model collate "C" as model, m.arm_index, m.model_index, m.provider
        from registry.manifest_models(manifest_content.manifest) as m
      ) as listed
      window same_id as (partition by listed.runtime, listed.model)
    ) as m
    left join registry.manifest_deprecated(manifest_content.manifest) as there
      on there.model = m.model and there.runtime = m.runtime
    left join registry.manifest_deprecated(manifest_content.manifest) as everywhere
      on everywhere.model = m.model and everywhere.is_everywhere
    left join unnest(content.equivalents) as e on e.model = m.model
    join unnest(content.providers) as p on p.name = m.provider
    where m.occurrence_on_arm = 1
  );

  content.claims := array(
    select row(a.runtime, not u.case_sensitive, u.pattern, u.is_prefix, u.provider, p.billed_to)::registry.claims
    from registry.manifest_uncovered(manifest_content.manifest) as u
    join unnest(content.arms) as a on a.provider = u.provider
    join unnest(content.providers) as p on p.name = u.provider
  );

  content.runtimes := array(
    select row(
      named.runtime,
      named.runtime_index + 1,
      named.model_policy,
      coalesce(named.default_model, menu.first),
      coalesce(menu.size, 0),
      named.runtime in (select c.runtime from unnest(content.claims) as c where c.case_folded)
    )::registry.runtimes
    from registry.manifest_runtimes(manifest_content.manifest) as named
    left join (
      select m.runtime, min(m.model) filter (where m.menu_position = 1) as first, count(m.menu_position) as size
      from unnest(content.models) as m
      group by m.runtime
    ) as menu on menu.runtime = named.runtime
  );

  return content;
end
$$;


--
-- Name: FUNCTION manifest_content(manifest jsonb); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.manifest_content(manifest jsonb) IS 'Internal: the rows that a valid manifest makes of the registry''s tables.';


--
-- Name: manifest_deprecated(jsonb); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.manifest_deprecated(manifest jsonb) RETURNS TABLE(model text, runtime text, is_everywhere boolean, deprecated_at timestamp with time zone, sunset_at timestamp with time zone, successor text)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select d.model, named.runtime, d.runtimes is null, d.deprecated_at, d.sunset_at, d.successor
  from registry.manifest_deprecations(manifest_deprecated.manifest) as d
  left join lateral jsonb_array_elements_text(d.runtimes) as named (runtime) on true
$$;


--
-- Name: FUNCTION manifest_deprecated(manifest jsonb); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.manifest_deprecated(manifest jsonb) IS 'Internal: what a valid manifest deprecates, one row for each runtime that it names, or one for all. A model is deprecated once for each runtime.';


--
-- Name: manifest_deprecations(jsonb); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.manifest_deprecations(manifest jsonb) RETURNS TABLE(deprecation_index bigint, model text, runtimes jsonb, deprecated_at timestamp with time zone, sunset_at timestamp with time zone, successor text)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select
    e.place - 1,
    e.item ->> 'model',
    e.item -> 'runtimes',
    registry.manifest_time(e.item ->> 'deprecated_at'),
    registry.manifest_time(e.item ->> 'sunset_at'),
    e.item ->> 'successor'
  from jsonb_array_elements(registry.manifest_array(manifest_deprecations.manifest -> 'deprecations'))
    with ordinality as e (item, place)
  where jsonb_typeof(e.item) = 'object'
$$;


--
-- Name: FUNCTION manifest_deprecations(manifest jsonb); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.manifest_deprecations(manifest jsonb) IS 'Internal: the deprecations of a manifest; runtimes is null where all that list the model are meant.';


--
-- Name: manifest_difference(jsonb, jsonb); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.manifest_difference(before jsonb, after jsonb, OUT added jsonb, OUT removed jsonb, OUT changed jsonb) RETURNS record
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_mergejoin TO 'off'
    AS $$
  with pair as materialized (
    select
      coalesce(new.fact, old.fact) as fact,
      old.says as old_says,
      new.says as new_says,
      coalesce(new.list, old.list) as list,
      old.place as old_place,
      new.place as new_place
    from registry.manifest_facts(manifest_difference.before) as old
    full join registry.manifest_facts(manifest_difference.after) as new on new.fact = old.fact
  ),
  -- The order among those that are in both: what merely makes room for another has not moved.
  kept as (
    select p.list collate "C" as list, p.fact, p.old_place, p.new_place
    from pair as p
    where p.old_says is not null and p.new_says is not null and p.list is not null
  ),
  reordered as (
    select distinct step.list
    from (
      select k.list, k.new_place < lag(k.new_place) over (partition by k.list order by k.old_place) as is_back from kept as k
    ) as step
    where step.is_back
  ),
  ranked as (
    select
      k.list::jsonb as list,
      k.fact -> (k.list::jsonb ->> 'of') as name,
      row_number() over (partition by k.list order by k.old_place) as old_rank,
      row_number() over (partition by k.list order by k.new_place) as new_rank
    from kept as k
    join reordered as r on r.list = k.list
  ),
  entry as (
    select
      p.fact
        || case when p.old_says <> '{}' then registry.manifest_side('before', p.old_says, p.new_says) else '{}' end
        || case when p.new_says <> '{}' then registry.manifest_side('after', p.new_says, p.old_says) else '{}' end
        as item,
      p.old_says is null as is_added,
      p.new_says is null as is_removed
    from pair as p
    where p.old_says is distinct from p.new_says
    union all
    select
      '{"kind": "order"}' || r.list || jsonb_build_object(
        'before', jsonb_agg(r.name order by r.old_rank),
        'after', jsonb_agg(r.name order by r.new_rank)
      ),
      false,
      false
    from ranked as r
    where r.old_rank <> r.new_rank
    group by r.list
  )
  -- Not jsonb_agg, whose work grows with the square of an item, such as a provider with very many prefixes.
  select
    to_jsonb(array(select e.item from entry as e where e.is_added order by e.item)),
    to_jsonb(array(select e.item from entry as e where e.is_removed order by e.item)),
    to_jsonb(array(select e.item from entry as e where not e.is_added and not e.is_removed order by e.item))
$$;


--
-- Name: FUNCTION manifest_difference(before jsonb, after jsonb, OUT added jsonb, OUT removed jsonb, OUT changed jsonb); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.manifest_difference(before jsonb, after jsonb, OUT added jsonb, OUT removed jsonb, OUT changed jsonb) IS 'Internal: what a manifest adds to another, removes from it, says otherwise and puts in another order.';


--
-- Name: manifest_equivalents(jsonb); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.manifest_equivalents(manifest jsonb) RETURNS TABLE(group_index bigint, model_index bigint, model text)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select
    g.place - 1,
    e.place - 1,
    e.item #>> '{}'
  from jsonb_array_elements(registry.manifest_array(manifest_equivalents.manifest -> 'equivalents'))
    with ordinality as g (item, place)
  cross join lateral jsonb_array_elements(registry.manifest_array(g.item)) with ordinality as e (item, place)
  where jsonb_typeof(e.item) = 'string'
$$;


--
-- Name: FUNCTION manifest_equivalents(manifest jsonb); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.manifest_equivalents(manifest jsonb) IS 'Internal: the ids of a manifest''s equivalents, by list.';


--
-- Name: manifest_facts(jsonb); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.manifest_facts(manifest jsonb) RETURNS TABLE(fact jsonb, says jsonb, list text, place bigint)
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select
    jsonb_build_object('kind', 'provider', 'provider', p.provider),
    jsonb_build_object(
      'billed_to', p.billed_to,
      'auth_env', p.auth_env,
      'model_prefixes', p.model_prefixes,
      'model_aliases', p.model_aliases,
      'case_sensitive', p.case_sensitive
    ),
    '{"of": "provider"}',
    p.provider_index
  from registry.manifest_providers(manifest_facts.manifest) as p
  union all
  select
    jsonb_build_object('kind', 'runtime', 'runtime', r.runtime),
    jsonb_build_object('default_model', coalesce(r.default_model, first.model), 'model_policy', r.model_policy),
    '{"of": "runtime"}',
    r.runtime_index
  from registry.manifest_runtimes(manifest_facts.manifest) as r
  left join (
    select distinct on (a.runtime) a.runtime, a.models ->> 0 as model
    from registry.manifest_arms(manifest_facts.manifest) as a
    where a.models <> '[]'
    order by a.runtime, a.arm_index
  ) as first on first.runtime = r.runtime
  union all
  select
    jsonb_build_object('kind', 'arm', 'runtime', a.runtime, 'provider', a.provider),
    '{}',
    jsonb_build_object('of', 'provider', 'runtime', a.runtime)::text,
    a.arm_index
  from registry.manifest_arms(manifest_facts.manifest) as a
  union all
  select
    jsonb_build_object('kind', 'model', 'runtime', m.runtime, 'provider', m.provider, 'model', m.model),
    case when coalesce(there.model, everywhere.model) is null then '{}' else
      jsonb_strip_nulls(jsonb_build_object(
        'deprecated_at', to_char(
          coalesce(there.deprecated_at, everywhere.deprecated_at) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'
        ),
        'sunset_at', to_char(
          coalesce(there.sunset_at, everywhere.sunset_at) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'
        ),
        'successor', coalesce(there.successor, everywhere.successor)
      ))
    end,
    arm.list,
    m.place
  from (
    select listed.runtime, listed.provider, listed.model, min(listed.model_index) as place
    from registry.manifest_models(manifest_facts.manifest) as listed
    group by listed.runtime, listed.provider, listed.model
  ) as m
  join (
    select
      a.runtime, a.provider,
      jsonb_build_object('of', 'model', 'runtime', a.runtime, 'provider', a.provider)::text as list
    from registry.manifest_arms(manifest_facts.manifest) as a
  ) as arm on arm.runtime = m.runtime and arm.provider = m.provider
  left join registry.manifest_deprecated(manifest_facts.manifest) as there
    on there.model = m.model and there.runtime = m.runtime
  left join registry.manifest_deprecated(manifest_facts.manifest) as everywhere
    on everywhere.model = m.model and everywhere.is_everywhere
  union all
  select distinct
    jsonb_build_object(
      'kind', 'equivalent',
      'models', (select coalesce(jsonb_agg(e.model order by e.model), '[]') from jsonb_array_elements(g.item) as e (model))
    ),
    '{}'::jsonb,
    null,
    null::bigint
  from jsonb_array_elements(registry.manifest_array(manifest_facts.manifest -> 'equivalents')) as g (item)
$$;


--
-- Name: FUNCTION manifest_facts(manifest jsonb); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.manifest_facts(manifest jsonb) IS 'Internal: the providers, runtimes, arms, models and equivalents of a valid manifest, what it says of each, and where in which list it has it.';


--
-- Name: manifest_models(jsonb); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.manifest_models(manifest jsonb) RETURNS TABLE(runtime_index bigint, runtime text, arm_index bigint, provider text, model_index bigint, model text)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select
    a.runtime_index,
    a.runtime,
    a.arm_index,
    a.provider,
    e.place - 1,
    e.item #>> '{}'
  from registry.manifest_arms(manifest_models.manifest) as a
  cross join lateral jsonb_array_elements(a.models) with ordinality as e (item, place)
  where jsonb_typeof(e.item) = 'string'
$$;


--
-- Name: FUNCTION manifest_models(manifest jsonb); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.manifest_models(manifest jsonb) IS 'Internal: the model ids that a manifest''s arms list.';


--
-- Name: manifest_overlaps(jsonb); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.manifest_overlaps(manifest jsonb) RETURNS SETOF registry.manifest_problem
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
declare
  most_comparisons constant bigint := 1000000;
  comparisons bigint := 0;
  claim record;
  runtime_index bigint;
  by_case boolean;
  patterns text[] collate "C";
  prefixes boolean[];
  owners text[] collate "C";
  paths text[];
  depth integer;
  other_owner integer;  -- The lowest of the stack that is not the owner's of its bottom; null: there is none.
begin
  for claim in
    with claim as materialized (
      select c.provider, c.path, c.pattern, lower(c.pattern collate "C") as folded, c.is_prefix, c.case_sensitive
      from registry.manifest_claims(manifest_overlaps.manifest) as c
      -- What is blank or too long is another problem.
      where octet_length(c.pattern) between 1 and 255
    ),
    arm as (
      select a.runtime_index, a.provider, min(a.arm_index) as arm_index, count(*) over (partition by a.runtime_index) as arms
      from registry.manifest_arms(manifest_overlaps.manifest) as a
      group by a.runtime_index, a.provider
    ),
    -- Case counts between two to whom it counts. With all others they are as one, in lower case.
    known as (
      select
        a.runtime_index,
        true as by_case,
        c.pattern collate "C" as pattern,
        c.is_prefix,
        a.arm_index,
        c.provider as owner,
        c.path
      from claim as c
      join arm as a on a.provider = c.provider
      where a.arms > 1 and c.case_sensitive
      union all
      select
        a.runtime_index,
        false,
        c.folded,
        c.is_prefix,
        a.arm_index,
        case when c.case_sensitive then '' else c.provider end,
        c.path
      from claim as c
      join arm as a on a.provider = c.provider
      where a.arms > 1
    )
    select k.*
    from known as k
    order by k.runtime_index, k.by_case, k.pattern, k.is_prefix desc, k.arm_index, k.path
  loop
    if (claim.runtime_index, claim.by_case) is distinct from (runtime_index, by_case) then
      runtime_index := claim.runtime_index;
      by_case := claim.by_case;
      patterns := '{}';
      prefixes := '{}';
      owners := '{}';
      paths := '{}';
      depth := 0;
      other_owner := null;
    end if;

    while depth > 0 and not case when prefixes[depth]
      then starts_with(claim.pattern, patterns[depth])
      else claim.pattern = patterns[depth] and not claim.is_prefix
    end
    loop
      depth := depth - 1;
    end loop;
    if other_owner > depth then
      other_owner := null;
    end if;

    if depth > 0 and (claim.owner <> owners[1] or other_owner is not null) then
      for place in 1 .. depth loop
        if owners[place] <> claim.owner then
          return next (
            claim.path, format('could claim the same id as %s, for runtimes[%s]', paths[place], runtime_index)
          )::registry.manifest_problem;
        end if;
      end loop;
      -- There can be as many as the square of the patterns, and nobody reads them all.
      comparisons := comparisons + depth;
      exit when comparisons > most_comparisons;
    end if;

    depth := depth + 1;
    patterns[depth] := claim.pattern;
    prefixes[depth] := claim.is_prefix;
    owners[depth] := claim.owner;
    paths[depth] := claim.path;
    if other_owner is null and claim.owner <> owners[1] then
      other_owner := depth;
    end if;
  end loop;
end
$$;


--
-- Name: FUNCTION manifest_overlaps(manifest jsonb); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.manifest_overlaps(manifest jsonb) IS 'Internal: the prefixes and aliases of a manifest that could claim the same id as those of another provider of the same runtime; not all, where there are very many.';


--
-- Name: manifest_problems(jsonb); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.manifest_problems(manifest jsonb) RETURNS SETOF registry.manifest_problem
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $_$
declare
  most_claims constant bigint := 2000000;
  claims bigint;
begin
  -- Shapes.
  return query
    select * from registry.shape_problems(
      '',
      manifest_problems.manifest,
      '{"schema_version": "number", "providers": "array", "runtimes": "array"}',
      '{"equivalents": "array", "deprecations": "array"}'
    );
  if jsonb_typeof(manifest_problems.manifest) is distinct from 'object' then
    return;
  end if;
  return query
    select problem.path, problem.problem
    from jsonb_array_elements(registry.manifest_array(manifest_problems.manifest -> 'providers'))
      with ordinality as e (item, place)
    cross join lateral registry.shape_problems(
      format('providers[%s]', e.place - 1),
      e.item,
      '{"name": "string"}',
      '{"billed_to": "string", "auth_env": "array", "model_prefixes": "array", "model_aliases": "array",
        "case_sensitive": "boolean"}'
    ) as problem;
  return query
    select problem.path, problem.problem
    from jsonb_array_elements(registry.manifest_array(manifest_problems.manifest -> 'runtimes'))
      with ordinality as e (item, place)
    cross join lateral registry.shape_problems(
      format('runtimes[%s]', e.place - 1),
      e.item,
      '{"name": "string"}',
      '{"default_model": "string", "model_policy": "string", "arms": "array"}'
    ) as problem;
  return query
    select problem.path, problem.problem
    from registry.manifest_runtimes(manifest_problems.manifest) as r
    cross join lateral jsonb_array_elements(r.arms) with ordinality as e (item, place)
    cross join lateral registry.shape_problems(
      format('runtimes[%s].arms[%s]', r.runtime_index, e.place - 1),
      e.item,
      '{"provider": "string"}',
      '{"models": "array"}'
    ) as problem;
  return query
    select format('equivalents[%s]', e.place - 1), 'must be an array'
    from jsonb_array_elements(registry.manifest_array(manifest_problems.manifest -> 'equivalents'))
      with ordinality as e (item, place)
    where jsonb_typeof(e.item) <> 'array';
  return query
    select problem.path, problem.problem
    from jsonb_array_elements(registry.manifest_array(manifest_problems.manifest -> 'deprecations'))
      with ordinality as e (item, place)
    cross join lateral registry.shape_problems(
      format('deprecations[%s]', e.place - 1),
      e.item,
      '{"model": "string", "deprecated_at": "string"}',
      '{"runtimes": "array", "sunset_at": "string", "successor": "string"}'
    ) as problem;

  -- Values of a fixed set, and times.
  return query
    select 'schema_version', 'must be 1, the only version this release reads'
    where jsonb_typeof(manifest_problems.manifest -> 'schema_version') = 'number'
      and manifest_problems.manifest -> 'schema_version' <> '1';
  return query
    select format('providers[%s].billed_to', p.provider_index), 'must be platform or tenant'
    from registry.manifest_providers(manifest_problems.manifest) as p
    where p.billed_to not in ('platform', 'tenant');
  return query
    select format('runtimes[%s].model_policy', r.runtime_index), 'must be registered or any'
    from registry.manifest_runtimes(manifest_problems.manifest) as r
    where r.model_policy not in ('registered', 'any');
  return query
    select
      format('deprecations[%s].%s', e.place - 1, named.key),
      'must be a date or a time in UTC, such as 2026-03-01 or 2026-03-01T12:00:00Z'
    from jsonb_array_elements(registry.manifest_array(manifest_problems.manifest -> 'deprecations'))
      with ordinality as e (item, place)
    cross join (values ('deprecated_at'), ('sunset_at')) as named (key)
    where jsonb_typeof(e.item -> named.key) = 'string' and registry.manifest_time(e.item ->> named.key) is null;
  return query
    select format('deprecations[%s].sunset_at', d.deprecation_index), 'must be after deprecated_at'
    from registry.manifest_deprecations(manifest_problems.manifest) as d
    where d.sunset_at <= d.deprecated_at;

  -- Ids and names.
  return query
    select id.path, registry.id_problem(id.value)
    from (
      select format('providers[%s].%s', p.place - 1, named.key), named.value
      from jsonb_array_elements(registry.manifest_array(manifest_problems.manifest -> 'providers'))
        with ordinality as p (item, place)
      cross join lateral (
        select 'name', p.item -> 'name'
        where jsonb_typeof(p.item -> 'name') = 'string'
        union all
        select format('%s[%s]', list.key, e.place - 1), e.item
        from (values ('auth_env'), ('model_prefixes'), ('model_aliases')) as list (key)
        cross join lateral jsonb_array_elements(registry.manifest_array(p.item -> list.key))
          with ordinality as e (item, place)
      ) as named (key, value)
      union all
      select format('runtimes[%s].%s', r.place - 1, named.key), r.item -> named.key
      from jsonb_array_elements(registry.manifest_array(manifest_problems.manifest -> 'runtimes'))
        with ordinality as r (item, place)
      cross join (values ('name'), ('default_model')) as named (key)
      where jsonb_typeof(r.item -> named.key) = 'string'
      union all
      select format('runtimes[%s].arms[%s].provider', a.runtime_index, a.arm_index), to_jsonb(a.provider)
      from registry.manifest_arms(manifest_problems.manifest) as a
      where a.provider is not null
      union all
      select format('runtimes[%s].arms[%s].models[%s]', a.runtime_index, a.arm_index, e.place - 1), e.item
      from registry.manifest_arms(manifest_problems.manifest) as a
      cross join lateral jsonb_array_elements(a.models) with ordinality as e (item, place)
      union all
      select format('equivalents[%s][%s]', g.place - 1, e.place - 1), e.item
      from jsonb_array_elements(registry.manifest_array(manifest_problems.manifest -> 'equivalents'))
        with ordinality as g (item, place)
      cross join lateral jsonb_array_elements(registry.manifest_array(g.item)) with ordinality as e (item, place)
      union all
      select format('deprecations[%s].%s', d.deprecation_index, named.key), to_jsonb(named.value)
      from registry.manifest_deprecations(manifest_problems.manifest) as d
      cross join lateral (values ('model', d.model), ('successor', d.successor)) as named (key, value)
      where named.value is not null
      union all
      select format('deprecations[%s].runtimes[%s]', d.deprecation_index, e.place - 1), e.item
      from registry.manifest_deprecations(manifest_problems.manifest) as d
      cross join lateral jsonb_array_elements(registry.manifest_array(d.runtimes)) with ordinality as e (item, place)
    ) as id (path, value)
    -- Most ids are plain ASCII, and that is seen faster than by a call.
    where not (
        jsonb_typeof(id.value) = 'string' and id.value #>> '{}' ~ '^[!-~]+$' and octet_length(id.value #>> '{}') <= 255
      )
      and registry.id_problem(id.value) is not null;

  -- Names that stand twice, or for nothing.
  return query
    select format('providers[%s].name', named.provider_index), 'is the name of an earlier provider'
    from (
      select
        p.provider_index,
        row_number() over (partition by p.provider order by p.provider_index) as occurrence
      from registry.manifest_providers(manifest_problems.manifest) as p
      where p.provider is not null
    ) as named
    where named.occurrence > 1;
  return query
    select format('runtimes[%s].name', named.runtime_index), 'is the name of an earlier runtime'
    from (
      select
        r.runtime_index,
        row_number() over (partition by r.runtime order by r.runtime_index) as occurrence
      from registry.manifest_runtimes(manifest_problems.manifest) as r
      where r.runtime is not null
    ) as named
    where named.occurrence > 1;
  return query
    select
      format('runtimes[%s].arms[%s].provider', arm.runtime_index, arm.arm_index),
      case when arm.is_known then 'is the provider of an earlier arm' else 'is not the name of a provider' end
    from (
      select
        a.runtime_index,
        a.arm_index,
        known.provider is not null as is_known,
        row_number() over (partition by a.runtime_index, a.provider order by a.arm_index) as occurrence
      from registry.manifest_arms(manifest_problems.manifest) as a
      left join (
        select distinct p.provider from registry.manifest_providers(manifest_problems.manifest) as p
      ) as known on known.provider = a.provider
      where a.provider is not null
    ) as arm
    where not arm.is_known or arm.occurrence > 1;
  return query
    select format('runtimes[%s].default_model', r.runtime_index), 'is not on the menu of this runtime'
    from registry.manifest_runtimes(manifest_problems.manifest) as r
    where r.default_model is not null
      and not exists (
        select
        from registry.manifest_models(manifest_problems.manifest) as m
        where m.runtime_index = r.runtime_index and m.model = r.default_model
      );
  return query
    select
      format('equivalents[%s][%s]', equivalent.group_index, equivalent.model_index),
      case when equivalent.is_known then 'stands in the equivalents before' else 'is not on the menu of any runtime' end
    from (
      select
        e.group_index,
        e.model_index,
        known.model is not null as is_known,
        row_number() over (partition by e.model order by e.group_index, e.model_index) as occurrence
      from registry.manifest_equivalents(manifest_problems.manifest) as e
      left join (
        select distinct m.model from registry.manifest_models(manifest_problems.manifest) as m
      ) as known on known.model = e.model
    ) as equivalent
    where not equivalent.is_known or equivalent.occurrence > 1;

  -- What a deprecation names: a model on a menu, once for each runtime, and another model on a menu to succeed it.
  return query
    with listed as materialized (
      select distinct m.runtime collate "C" as runtime, m.model collate "C" as model
      from registry.manifest_models(manifest_problems.manifest) as m
    ),
    deprecated as materialized (
      select * from registry.manifest_deprecations(manifest_problems.manifest)
    ),
    -- A runtime's name, or null: wherever the model is on a menu.
    meant as (
      select
        d.deprecation_index,
        e.place,
        format('deprecations[%s].runtimes[%s]', d.deprecation_index, e.place - 1) as path,
        d.model,
        e.item #>> '{}' as runtime,
        l.model is not null as is_known
      from deprecated as d
      cross join lateral jsonb_array_elements(registry.manifest_array(d.runtimes)) with ordinality as e (item, place)
      left join listed as l on l.runtime = e.item #>> '{}' and l.model = d.model
      where d.model is not null and jsonb_typeof(e.item) = 'string'
      union all
      select
        d.deprecation_index, 1, format('deprecations[%s].model', d.deprecation_index), d.model, null, l.model is not null
      from deprecated as d
      left join (select distinct each.model from listed as each) as l on l.model = d.model
      where d.model is not null and d.runtimes is null
    ),
    judged as (
      select
        m.path,
        m.runtime,
        m.is_known,
        -- The same again; or everywhere before here; or here before everywhere.
        row_number() over (partition by m.model, m.runtime order by m.deprecation_index, m.place) > 1
          or case when m.runtime is null then
            min(m.deprecation_index) filter (where m.runtime is not null and m.is_known) over (partition by m.model)
          else
            min(m.deprecation_index) filter (where m.runtime is null) over (partition by m.model)
          end < m.deprecation_index as is_late
      from meant as m
    )
    select
      j.path,
      case
        when j.is_known then 'is deprecated by an earlier entry for the same runtime'
        when j.runtime is null then 'is not on the menu of any runtime'
        else 'is not a runtime with this model on its menu'
      end
    from judged as j
    where not j.is_known or j.is_late
    union all
    select format('deprecations[%s].runtimes', d.deprecation_index), 'must not be empty'
    from deprecated as d
    where d.runtimes = '[]'
    union all
    select format('deprecations[%s].successor', d.deprecation_index), 'is the deprecated model itself'
    from deprecated as d
    where d.successor = d.model
    union all
    select format('deprecations[%s].successor', d.deprecation_index), 'is not on the menu of any runtime'
    from deprecated as d
    where d.successor is not null and not exists (select from listed as l where l.model = d.successor)
    order by 1, 2;

  -- Each runtime has its own row for each prefix and alias: that is where a short manifest could become very much.
  select sum(owned.claims)
  into claims
  from registry.manifest_arms(manifest_problems.manifest) as a
  join (
    select c.provider, count(*) as claims
    from registry.manifest_claims(manifest_problems.manifest) as c
    group by c.provider
  ) as owned on owned.provider = a.provider;
  if claims > most_claims then
    return next (
      'runtimes',
      format('have %s prefixes and aliases, counted for each runtime, and can have %s', claims, most_claims)
    )::registry.manifest_problem;
    return;
  end if;

  -- Two providers of one runtime that could claim the same id.
  return query
    select found.path, found.problem
    from registry.manifest_overlaps(manifest_problems.manifest) as found
    order by found.path, found.problem;
end
$_$;


--
-- Name: FUNCTION manifest_problems(manifest jsonb); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.manifest_problems(manifest jsonb) IS 'Internal: every problem of a manifest with the path it is found at; none if it can be loaded.';


--
-- Name: manifest_providers(jsonb); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.manifest_providers(manifest jsonb) RETURNS TABLE(provider_index bigint, provider text, billed_to text, auth_env text[], model_prefixes text[], model_aliases text[], case_sensitive boolean)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select
    e.place - 1,
    e.item ->> 'name',
    coalesce(e.item ->> 'billed_to', 'tenant'),
    registry.manifest_strings(e.item -> 'auth_env'),
    registry.manifest_strings(e.item -> 'model_prefixes'),
    registry.manifest_strings(e.item -> 'model_aliases'),
    e.item -> 'case_sensitive' is distinct from 'false'
  from jsonb_array_elements(registry.manifest_array(manifest_providers.manifest -> 'providers'))
    with ordinality as e (item, place)
  where jsonb_typeof(e.item) = 'object'
$$;


--
-- Name: FUNCTION manifest_providers(manifest jsonb); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.manifest_providers(manifest jsonb) IS 'Internal: the providers of a manifest.';


--
-- Name: manifest_runtimes(jsonb); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.manifest_runtimes(manifest jsonb) RETURNS TABLE(runtime_index bigint, runtime text, default_model text, model_policy text, arms jsonb)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select
    e.place - 1,
    e.item ->> 'name',
    e.item ->> 'default_model',
    coalesce(e.item ->> 'model_policy', 'registered'),
    registry.manifest_array(e.item -> 'arms')
  from jsonb_array_elements(registry.manifest_array(manifest_runtimes.manifest -> 'runtimes'))
    with ordinality as e (item, place)
  where jsonb_typeof(e.item) = 'object'
$$;


--
-- Name: FUNCTION manifest_runtimes(manifest jsonb); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.manifest_runtimes(manifest jsonb) IS 'Internal: the runtimes of a manifest.';


--
-- Name: manifest_side(text, jsonb, jsonb); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.manifest_side(side text, says jsonb, other jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select case when differing.says = '{}' then '{}' else jsonb_build_object(manifest_side.side, differing.says) end
  from (
    select manifest_side.says - array(
      select s.key
      from jsonb_each(manifest_side.says) as s
      where manifest_side.other -> s.key is not distinct from s.value
    )
  ) as differing (says)
$$;


--
-- Name: FUNCTION manifest_side(side text, says jsonb, other jsonb); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.manifest_side(side text, says jsonb, other jsonb) IS 'Internal: what one manifest says of a thing and the other does not, under the key side; an empty object if there is nothing.';


--
-- Name: manifest_strings(jsonb); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.manifest_strings(value jsonb) RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select array(
    select e.item #>> '{}'
    from jsonb_array_elements(registry.manifest_array(manifest_strings.value)) with ordinality as e (item, place)
    where jsonb_typeof(e.item) = 'string'
    order by e.place
  )
$$;


--
-- Name: FUNCTION manifest_strings(value jsonb); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.manifest_strings(value jsonb) IS 'Internal: the strings of an array, in order.';


--
-- Name: manifest_time(text); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.manifest_time(value text) RETURNS timestamp with time zone
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
begin
  -- Read alike in every session: it depends on neither DateStyle nor TimeZone.
  if manifest_time.value ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}$' then
    return (manifest_time.value || 'T00:00:00Z')::timestamptz;
  elsif manifest_time.value ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z$' then
    return manifest_time.value::timestamptz;
  end if;
  return null;
exception
  when datetime_field_overflow then
    return null;
end
$_$;


--
-- Name: FUNCTION manifest_time(value text); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.manifest_time(value text) IS 'Internal: a date, which begins at midnight UTC, or a time in UTC; null if the value is neither.';


--
-- Name: manifest_uncovered(jsonb); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.manifest_uncovered(manifest jsonb) RETURNS TABLE(provider text, pattern text, is_prefix boolean, case_sensitive boolean)
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
declare
  claim record;
  covered_by text;
  owner text;
begin
  for claim in
    select distinct
      c.provider collate "C" as provider,
      c.pattern collate "C" as pattern,
      c.is_prefix,
      c.case_sensitive
    from registry.manifest_claims(manifest_uncovered.manifest) as c
    order by 1, 2, 3 desc
  loop
    continue when claim.provider = owner and starts_with(claim.pattern, covered_by);
    if claim.is_prefix then
      owner := claim.provider;
      covered_by := claim.pattern;
    end if;
    provider := claim.provider;
    pattern := claim.pattern;
    is_prefix := claim.is_prefix;
    case_sensitive := claim.case_sensitive;
    return next;
  end loop;
end
$$;


--
-- Name: FUNCTION manifest_uncovered(manifest jsonb); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.manifest_uncovered(manifest jsonb) IS 'Internal: the prefixes and aliases of a valid manifest, each once, without those that a prefix of the same provider covers: one step down the index has to be enough (registry.route).';


--
-- Name: menu(text); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.menu(runtime text) RETURNS SETOF text
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  asked_runtime constant text collate "C" := registry.clean_text(menu.runtime, 'runtime');
begin
  perform registry.require_runtime(asked_runtime);
  return query
    select m.model::text
    from registry.models as m
    where m.runtime = asked_runtime and m.menu_position is not null
    order by m.menu_position;
end
$$;


--
-- Name: FUNCTION menu(runtime text); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.menu(runtime text) IS 'A runtime''s registered models in order: the ids of its arms, each where it first occurs.
Errors: INVALID_ARGUMENT, RUNTIME_UNSUPPORTED, REGISTRY_UNAVAILABLE.';


--
-- Name: refuse_model(text); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.refuse_model(runtime text) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  raise exception using
    errcode = 'PT422',
    message = format('The model is not registered for the runtime %s.', refuse_model.runtime),
    detail = jsonb_build_object('code', 'MODEL_NOT_REGISTERED', 'runtime', refuse_model.runtime)
      || registry.valid_models(refuse_model.runtime),
    hint = 'Take one of valid_models, or a runtime that has this model.';
end
$$;


--
-- Name: FUNCTION refuse_model(runtime text); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.refuse_model(runtime text) IS 'Internal: raises MODEL_NOT_REGISTERED with the models that are.';


--
-- Name: replace_registry(registry.content); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.replace_registry(content registry.content) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_nestloop TO 'off'
    SET enable_mergejoin TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
begin
  delete from registry.providers as old
  where not exists (select from unnest(replace_registry.content.providers) as new where new = old);
  insert into registry.providers
  select new.* from unnest(replace_registry.content.providers) as new
  where not exists (select from registry.providers as old where old = new);

  delete from registry.arms as old
  where not exists (select from unnest(replace_registry.content.arms) as new where new = old);
  insert into registry.arms
  select new.* from unnest(replace_registry.content.arms) as new
  where not exists (select from registry.arms as old where old = new);

  delete from registry.models as old
  where not exists (select from unnest(replace_registry.content.models) as new where new = old);
  insert into registry.models
  select new.* from unnest(replace_registry.content.models) as new
  where not exists (select from registry.models as old where old = new);

  delete from registry.claims as old
  where not exists (select from unnest(replace_registry.content.claims) as new where new = old);
  insert into registry.claims
  select new.* from unnest(replace_registry.content.claims) as new
  where not exists (select from registry.claims as old where old = new);

  delete from registry.equivalents as old
  where not exists (select from unnest(replace_registry.content.equivalents) as new where new = old);
  insert into registry.equivalents
  select new.* from unnest(replace_registry.content.equivalents) as new
  where not exists (select from registry.equivalents as old where old = new);

  -- Runtimes are updated in place: workspaces refer to them.
  delete from registry.runtimes as old
  where not exists (select from unnest(replace_registry.content.runtimes) as new where new.name = old.name);
  insert into registry.runtimes
  select new.* from unnest(replace_registry.content.runtimes) as new
  where not exists (select from registry.runtimes as old where old = new)
  on conflict (name) do update set
    position = excluded.position,
    model_policy = excluded.model_policy,
    default_model = excluded.default_model,
    menu_size = excluded.menu_size,
    folds_case = excluded.folds_case;
end
$$;


--
-- Name: FUNCTION replace_registry(content registry.content); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.replace_registry(content registry.content) IS 'Internal: makes these rows the registry.';


--
-- Name: require_read_committed(); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.require_read_committed() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
    raise exception using
      errcode = 'PT400',
      message = 'This can only be done at the isolation level READ COMMITTED.',
      detail = jsonb_build_object('code', 'ISOLATION_UNSUPPORTED', 'isolation', current_setting('transaction_isolation')),
      hint = 'Begin the transaction with: begin isolation level read committed.';
  end if;
end
$$;


--
-- Name: FUNCTION require_read_committed(); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.require_read_committed() IS 'Internal: raises ISOLATION_UNSUPPORTED above READ COMMITTED.';


--
-- Name: require_runtime(text); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.require_runtime(runtime text) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if exists (select from registry.runtimes as r where r.name = require_runtime.runtime) then
    return;
  end if;
  if exists (select from registry.state as s where s.revision = 0) then
    raise exception using
      errcode = 'PT422',
      message = 'No registry is loaded.',
      detail = jsonb_build_object('code', 'REGISTRY_UNAVAILABLE'),
      hint = 'Load a manifest with fleet.load_registry.';
  end if;
  raise exception using
    errcode = 'PT422',
    message = format('The runtime %s is not in the registry.', to_json(require_runtime.runtime)),
    detail = jsonb_build_object(
      'code', 'RUNTIME_UNSUPPORTED',
      'runtime', require_runtime.runtime,
      'valid_runtimes', (
        select coalesce(jsonb_agg(r.name order by r.position), '[]') from registry.runtimes as r
      )
    ),
    hint = 'Take one of valid_runtimes. Runtime names are case-sensitive.';
end
$$;


--
-- Name: FUNCTION require_runtime(runtime text); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.require_runtime(runtime text) IS 'Internal: raises RUNTIME_UNSUPPORTED, or REGISTRY_UNAVAILABLE where nothing was ever loaded, unless the runtime is registered.';


--
-- Name: resolve(text, text, text[]); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.resolve(runtime text, model text, auth_env text[] DEFAULT '{}'::text[]) RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  asked_runtime constant text collate "C" := registry.clean_text(resolve.runtime, 'runtime');
  asked_model constant text collate "C" := registry.clean_text(resolve.model, 'model');
  credentials constant text[] collate "C" := coalesce(resolve.auth_env, '{}');
  routing registry.routing;
begin
  perform registry.require_runtime(asked_runtime);
  routing := registry.route(asked_runtime, asked_model, credentials);
  return routing.provider;
end
$$;


--
-- Name: FUNCTION resolve(runtime text, model text, auth_env text[]); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.resolve(runtime text, model text, auth_env text[]) IS 'Tells which provider serves a model on a runtime; null if none does.
Only the runtime''s own arms are asked. An arm that lists the exact id wins; of several, the only one whose auth_env has a
name in common with auth_env (names of the credentials at hand), else the first. With no exact id, the arm whose provider
owns a matching alias or prefix.
Errors: INVALID_ARGUMENT, RUNTIME_UNSUPPORTED, REGISTRY_UNAVAILABLE.';


--
-- Name: route(text, text, text[]); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.route(runtime text, model text, auth_env text[]) RETURNS registry.routing
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS $$
declare
  finding constant registry.finding := registry.look_up(route.runtime, route.model);
  routing registry.routing := finding.routing;
begin
  -- Of several arms that list the id, the only one that the credentials open wins, else the first.
  if finding.is_contested and route.auth_env <> '{}' then
    select true, candidate.provider, candidate.billed_to, candidate.deprecated_at <= now(), candidate.sunset_at
    into routing
    from (
      select
        m.provider,
        m.billed_to,
        m.deprecated_at,
        m.sunset_at,
        m.arm_position,
        p.auth_env && route.auth_env as is_open,
        count(*) filter (where p.auth_env && route.auth_env) over () as open_arms
      from registry.models as m
      join registry.providers as p on p.name = m.provider
      where m.runtime = route.runtime and m.model = route.model
    ) as candidate
    order by (candidate.is_open and candidate.open_arms = 1) desc, candidate.arm_position
    limit 1;
  end if;
  routing.routable := coalesce(routing.routable, false);
  return routing;
end
$$;


--
-- Name: FUNCTION route(runtime text, model text, auth_env text[]); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.route(runtime text, model text, auth_env text[]) IS 'Internal: whether a runtime can run a model, by which provider, and who is billed.';


--
-- Name: shape_problems(text, jsonb, jsonb, jsonb); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.shape_problems(path text, value jsonb, required jsonb, optional jsonb) RETURNS SETOF registry.manifest_problem
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if jsonb_typeof(shape_problems.value) is distinct from 'object' then
    return next (shape_problems.path, 'must be an object')::registry.manifest_problem;
    return;
  end if;

  return query
    select
      concat_ws('.', nullif(shape_problems.path, ''), coalesce(known.key, left(given.key, 255))),
      case
        when known.key is null then 'is not a known key'
        when given.key is null then 'is missing'
        when known.type in ('array', 'object') then format('must be an %s', known.type)
        else format('must be a %s', known.type)
      end
    from jsonb_each_text(shape_problems.required || shape_problems.optional) as known (key, type)
    full join jsonb_each(shape_problems.value) as given (key, item) on given.key = known.key
    where known.key is null
      or (given.key is null and shape_problems.required ? known.key)
      or jsonb_typeof(given.item) <> known.type
    order by coalesce(known.key, given.key);
end
$$;


--
-- Name: FUNCTION shape_problems(path text, value jsonb, required jsonb, optional jsonb); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.shape_problems(path text, value jsonb, required jsonb, optional jsonb) IS 'Internal: unknown and missing keys of an object, and values of another type than the one named for their key.';


--
-- Name: status(); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.status() RETURNS registry.installation
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select (select v.version_num::text from registry.alembic_version as v), (select s.revision from registry.state as s)
$$;


--
-- Name: FUNCTION status(); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.status() IS 'What is installed and loaded: whoever serves from this database looks here whether it can.';


--
-- Name: text_problem(text); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.text_problem(value text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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


--
-- Name: FUNCTION text_problem(value text); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.text_problem(value text) IS 'Internal: what is wrong with a trimmed id or name; null if nothing.';


--
-- Name: trim_text(text); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.trim_text(value text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  -- Unicode's White_Space property.
  white_space constant text :=
    E'\u0009\u000a\u000b\u000c\u000d \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006'
    '\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000';
begin
  return btrim(trim_text.value, white_space);
end
$$;


--
-- Name: FUNCTION trim_text(value text); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.trim_text(value text) IS 'Internal: the value without Unicode white space around it.';


--
-- Name: valid_models(text); Type: FUNCTION; Schema: registry; Owner: -
--

CREATE FUNCTION registry.valid_models(runtime text) RETURNS jsonb
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select jsonb_build_object(
    'valid_models', coalesce(
      (
        select jsonb_agg(listed.model order by listed.menu_position)
        from (
          select m.model, m.menu_position
          from registry.models as m
          where m.runtime = valid_models.runtime and m.menu_position is not null
          order by m.menu_position
          limit 50
        ) as listed
      ),
      '[]'
    ),
    'valid_models_total', coalesce(
      (select r.menu_size from registry.runtimes as r where r.name = valid_models.runtime), 0
    )
  )
$$;


--
-- Name: FUNCTION valid_models(runtime text); Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON FUNCTION registry.valid_models(runtime text) IS 'Internal: the first 50 ids of a runtime''s menu and how many there are, for the DETAIL of a refusal.';


--
-- Name: actor(); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.actor() RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return left(coalesce(nullif(current_setting('runtime_registry.actor', true), ''), session_user), 255);
end
$$;


--
-- Name: FUNCTION actor(); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.actor() IS 'Internal: who the history names: the setting runtime_registry.actor (its first 255 characters), else the session user.';


--
-- Name: begin_era(); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.begin_era() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  -- Whoever comes second waits for the first and then finds nothing left to do; above READ COMMITTED it gets 40001.
  update workspace.numbering as n
  set era = n.era + 1
  where (n.made_in = n.tableoid and n.made_by = n.xmin) is not true;
  if found then
    update workspace.numbering as n set made_in = n.tableoid, made_by = n.xmin;
  elsif not exists (select from workspace.numbering as n) then
    -- Not made anew: nobody knows which eras there were.
    raise exception using
      errcode = 'object_not_in_prerequisite_state',
      message = 'The table workspace.numbering has lost its row.',
      hint = 'Restore it together with the other tables of workspace.';
  end if;
end
$$;


--
-- Name: FUNCTION begin_era(); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.begin_era() IS 'Internal: makes the positions of changes go on above all that came with a dump, whatever transaction ids are here.';


--
-- Name: changes; Type: TABLE; Schema: workspace; Owner: -
--

CREATE TABLE workspace.changes (
    workspace_id uuid NOT NULL,
    version bigint NOT NULL,
    action text NOT NULL,
    changed boolean NOT NULL,
    previous_runtime text COLLATE pg_catalog."C",
    runtime text COLLATE pg_catalog."C",
    previous_sealed bytea,
    previous_key_id integer,
    sealed bytea,
    key_id integer,
    model_source text NOT NULL,
    provider text,
    billed_to text,
    billing_changed boolean NOT NULL,
    restore boolean NOT NULL,
    actor text NOT NULL,
    request_id text COLLATE pg_catalog."C",
    changed_at timestamp with time zone NOT NULL,
    txid xid8 NOT NULL,
    secret text COLLATE pg_catalog."C",
    model_deprecated boolean DEFAULT false NOT NULL,
    model_sunset_at timestamp with time zone,
    "position" bigint DEFAULT 0 NOT NULL,
    name text
);


--
-- Name: TABLE changes; Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON TABLE workspace.changes IS 'Every write to a workspace, in order; only keyring.reseal rewrites sealed bytes and only fleet.prune_changes deletes. It outlives its workspace.';


--
-- Name: COLUMN changes.action; Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON COLUMN workspace.changes.action IS 'The function that made the change.';


--
-- Name: COLUMN changes.changed; Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON COLUMN workspace.changes.changed IS 'False: the call found nothing to do and is recorded because it had a request_id.';


--
-- Name: COLUMN changes.previous_sealed; Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON COLUMN workspace.changes.previous_sealed IS 'The model before, as it was sealed; null if there was none or it was unreadable.';


--
-- Name: COLUMN changes.sealed; Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON COLUMN workspace.changes.sealed IS 'The model after, as it was sealed; null if there is none.';


--
-- Name: COLUMN changes.model_source; Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON COLUMN workspace.changes.model_source IS 'Where the model came from: requested, kept, restored, equivalent, default or none.';


--
-- Name: COLUMN changes.restore; Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON COLUMN workspace.changes.restore IS 'Whether change_runtime was asked to restore.';


--
-- Name: COLUMN changes.actor; Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON COLUMN workspace.changes.actor IS 'The setting runtime_registry.actor, else the session user.';


--
-- Name: COLUMN changes.txid; Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON COLUMN workspace.changes.txid IS 'The transaction that made the change.';


--
-- Name: COLUMN changes.secret; Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON COLUMN workspace.changes.secret IS 'The secret that set_secret or delete_secret changed; null: the model''s or none.';


--
-- Name: COLUMN changes.model_deprecated; Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON COLUMN workspace.changes.model_deprecated IS 'Whether the registry deprecated the model after, there and then; its end, if that was known, is model_sunset_at.';


--
-- Name: COLUMN changes."position"; Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON COLUMN workspace.changes."position" IS 'Its place in the feed, see workspace.lock_workspace; 0: made before there was a feed.';


--
-- Name: COLUMN changes.name; Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON COLUMN workspace.changes.name IS 'The name that the call gave; null: it gave none.';


--
-- Name: change_of(workspace.changes, text, text); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.change_of(recorded workspace.changes, previous_model text, model text) RETURNS workspace.change
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return (
    recorded.workspace_id,
    recorded.version,
    recorded.changed,
    recorded.previous_runtime,
    recorded.runtime,
    change_of.previous_model,
    change_of.model,
    recorded.model_source,
    recorded.model_source in ('restored', 'equivalent', 'default'),
    recorded.provider,
    recorded.billed_to,
    recorded.billing_changed,
    -- needs_restart
    recorded.changed and case
      when recorded.action in ('create_workspace', 'delete_workspace') then false
      when recorded.action = 'rename_workspace' then
        recorded.runtime <> recorded.previous_runtime or change_of.previous_model is distinct from change_of.model
      else true
    end,
    recorded.model_deprecated,
    recorded.model_sunset_at
  )::workspace.change;
end
$$;


--
-- Name: FUNCTION change_of(recorded workspace.changes, previous_model text, model text); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.change_of(recorded workspace.changes, previous_model text, model text) IS 'Internal: a change as its caller is told it.';


--
-- Name: change_runtime(uuid, text, text, boolean, bigint, text); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.change_runtime(ws uuid, runtime text, model text DEFAULT NULL::text, restore boolean DEFAULT false, expected_version bigint DEFAULT NULL::bigint, request_id text DEFAULT NULL::text) RETURNS workspace.change
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
  target constant text collate "C" := registry.clean_text(change_runtime.runtime, 'runtime');
  wanted constant text collate "C" :=
    case when change_runtime.model is not null then registry.clean_text(change_runtime.model, 'model') end;
  request constant text collate "C" :=
    case when change_runtime.request_id is not null then registry.clean_text(change_runtime.request_id, 'request_id') end;
  current workspace.snapshot;
  answer workspace.change;
  decided workspace.decision;
begin
  if change_runtime.restore is null then
    perform registry.invalid_argument('restore', 'is null');
  end if;

  current := workspace.lock_workspace(change_runtime.ws, target);

  -- A replay is answered before anything is checked: its first try has moved the version, and the runtime may be gone since.
  if request is not null then
    answer := workspace.recorded_answer(
      current.with_key, current.workspace_id, request, 'change_runtime', target, wanted, change_runtime.restore
    );
    if answer.workspace_id is not null then
      return answer;
    end if;
  end if;

  if change_runtime.expected_version <> current.version then
    perform registry.require_runtime(target);
    perform workspace.version_conflict(current.workspace_id, current.version, change_runtime.expected_version);
  end if;
  decided := workspace.choose_model(current, target, wanted, change_runtime.restore);
  return workspace.write_change(current, decided, 'change_runtime', change_runtime.restore, request);
end
$$;


--
-- Name: FUNCTION change_runtime(ws uuid, runtime text, model text, restore boolean, expected_version bigint, request_id text); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.change_runtime(ws uuid, runtime text, model text, restore boolean, expected_version bigint, request_id text) IS 'Switches a workspace to a runtime and, where its model is not registered there, to a model that is.
The model: model if given (strict: refused unless registered for the runtime); else the current one if it is registered there; else, with
restore, the one this workspace last had on that runtime; else an equivalent of the current one; else the runtime''s default.
A workspace without a model stays without.
ws: the workspace. runtime: the new runtime. expected_version: refuse unless the workspace is at this version. request_id: the
caller''s name for this request; repeated, it gets the recorded answer and changes nothing.
Secret, runtime, version and the row in the history are written together or not at all. Where there is nothing to change, nothing is
written (with a request_id, the answer is recorded).
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, VERSION_CONFLICT, RUNTIME_UNSUPPORTED, MODEL_NOT_REGISTERED, NO_DEFAULT_MODEL,
REGISTRY_UNAVAILABLE, REQUEST_ID_REUSED, SECRET_UNREADABLE, ENCRYPTION_KEY_MISSING. Above READ COMMITTED, 40001 if the registry was loaded
meanwhile.
Call it as: select * from workspace.change_runtime(...). In (workspace.change_runtime(...)).* it would run once a column.';


--
-- Name: choose_model(workspace.snapshot, text, text, boolean); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.choose_model(current workspace.snapshot, runtime text, model text, restore boolean) RETURNS workspace.decision
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS $$
declare
  finding registry.finding;
  last keyring.sealed_value;
  chosen text := choose_model.model;
  source text := 'requested';
  routing registry.routing;
  previous_billed_to text;
  is_changed boolean;
begin
  -- An explicit choice is strict: it is never replaced by another model.
  if chosen is not null then
    routing := workspace.route(current.workspace_id, choose_model.runtime, chosen);
    if not routing.routable then
      perform registry.require_runtime(choose_model.runtime);
      perform registry.refuse_model(choose_model.runtime);
    end if;
    if current.model is not null then
      previous_billed_to := (workspace.route(current.workspace_id, current.runtime, current.model)).billed_to;
    end if;

  elsif current.model is null then
    perform registry.require_runtime(choose_model.runtime);
    if current.model_is_unreadable then
      perform workspace.secret_unreadable(current.workspace_id);
    end if;
    source := 'none';

  else
    chosen := current.model;
    source := 'kept';
    finding := registry.look_up(choose_model.runtime, chosen, current.runtime);
    routing := finding.routing;
    if finding.is_contested then
      routing := workspace.route(current.workspace_id, choose_model.runtime, chosen);
    end if;
    previous_billed_to := finding.previous_billed_to;
    if finding.previous_is_contested is not false then
      previous_billed_to := (workspace.route(current.workspace_id, current.runtime, chosen)).billed_to;
    end if;

    -- Orphaned. What replaces it comes from the workspace's own history or the registry, never from the caller.
    if routing.routable is not true and choose_model.restore then
      select c.sealed, c.key_id
      into last
      from workspace.changes as c
      where c.workspace_id = current.workspace_id
        and c.runtime = choose_model.runtime
        and c.sealed is not null
      order by c.version desc
      limit 1;
      chosen := keyring.unseal(current.with_key, current.workspace_id, 'MODEL', last.sealed, last.key_id);
      source := 'restored';
      routing := workspace.route(current.workspace_id, choose_model.runtime, chosen);
    end if;

    if routing.routable is not true and finding.has_equivalents is not false then
      select alike.model
      into chosen
      from registry.equivalents as e
      join registry.equivalents as alike on alike.group_number = e.group_number
      -- Limited so that it stays what it is, a lookup for each, and is not turned into a walk along the menu.
      cross join lateral (
        select m.menu_position
        from registry.models as m
        where m.runtime = choose_model.runtime and m.model = alike.model and m.menu_position is not null
        limit 1
      ) as listed
      where e.model = current.model
      order by listed.menu_position
      limit 1;
      if found then
        source := 'equivalent';
        routing := workspace.route(current.workspace_id, choose_model.runtime, chosen);
      end if;
    end if;

    if routing.routable is not true then
      chosen := finding.default_model;
      source := 'default';
      routing := finding.default_routing;
      if chosen is null then
        perform registry.require_runtime(choose_model.runtime);
        raise exception using
          errcode = 'PT422',
          message = format(
            'The current model is not registered for the runtime %s, which has no default model.', choose_model.runtime
          ),
          detail = jsonb_build_object('code', 'NO_DEFAULT_MODEL', 'runtime', choose_model.runtime)
            || registry.valid_models(choose_model.runtime),
          hint = 'Take another runtime, or name a model that this one accepts in the same call. Nothing was changed.';
      elsif finding.default_is_contested then
        routing := workspace.route(current.workspace_id, choose_model.runtime, chosen);
      end if;
    end if;
  end if;

  is_changed := choose_model.runtime is distinct from current.runtime
    or chosen is distinct from current.model
    or current.model_is_unreadable;
  return (
    choose_model.runtime,
    chosen,
    source,
    routing.provider,
    routing.billed_to,
    coalesce(routing.deprecated, false),
    routing.sunset_at,
    is_changed,
    is_changed and coalesce(previous_billed_to <> routing.billed_to, false)
  )::workspace.decision;
end
$$;


--
-- Name: FUNCTION choose_model(current workspace.snapshot, runtime text, model text, restore boolean); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.choose_model(current workspace.snapshot, runtime text, model text, restore boolean) IS 'Internal: the model a workspace gets on a runtime, and why.
Raises RUNTIME_UNSUPPORTED, REGISTRY_UNAVAILABLE, MODEL_NOT_REGISTERED, SECRET_UNREADABLE or NO_DEFAULT_MODEL.';


--
-- Name: clear_model(uuid, bigint, text); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.clear_model(ws uuid, expected_version bigint DEFAULT NULL::bigint, request_id text DEFAULT NULL::text) RETURNS workspace.change
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
  request constant text collate "C" :=
    case when clear_model.request_id is not null then registry.clean_text(clear_model.request_id, 'request_id') end;
  current workspace.snapshot;
  answer workspace.change;
  decided workspace.decision;
begin
  current := workspace.lock_workspace(clear_model.ws, needs_key => false);

  answer := workspace.recorded_answer(current.with_key, current.workspace_id, request, 'clear_model', null, null, false);
  if answer.workspace_id is not null then
    return answer;
  end if;

  if clear_model.expected_version <> current.version then
    perform workspace.version_conflict(current.workspace_id, current.version, clear_model.expected_version);
  end if;
  -- No model, so nobody serves it and nobody pays; changed, if there was one.
  decided := (current.runtime, null, 'none', null, null, false, null, current.sealed is not null, false);
  return workspace.write_change(current, decided, 'clear_model', false, request);
end
$$;


--
-- Name: FUNCTION clear_model(ws uuid, expected_version bigint, request_id text); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.clear_model(ws uuid, expected_version bigint, request_id text) IS 'Removes a workspace''s model, readable or not.
ws: the workspace. expected_version: refuse unless the workspace is at this version. request_id: the caller''s name for this request;
repeated, it gets the recorded answer and changes nothing.
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, VERSION_CONFLICT, REQUEST_ID_REUSED. Above READ COMMITTED, 40001 if the registry was loaded
meanwhile.';


--
-- Name: create_workspace(text, text, text, uuid, text); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.create_workspace(name text, runtime text, model text DEFAULT NULL::text, id uuid DEFAULT NULL::uuid, request_id text DEFAULT NULL::text) RETURNS workspace.change
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
  called constant text collate "C" := registry.clean_text(create_workspace.name, 'name');
  target constant text collate "C" := registry.clean_text(create_workspace.runtime, 'runtime');
  wanted constant text collate "C" :=
    case when create_workspace.model is not null then registry.clean_text(create_workspace.model, 'model') end;
  request constant text collate "C" :=
    case when create_workspace.request_id is not null then registry.clean_text(create_workspace.request_id, 'request_id') end;
  -- A request_id has no line break, so no other actor and request_id make the same text.
  digest bytea := sha256(convert_to(workspace.actor() || E'\n' || request, 'UTF8'));
  moment timestamptz;
  answer workspace.change;
  absent workspace.snapshot;
  decided workspace.decision;
begin
  -- Who repeats a request finds the workspace of the first try, because the id is made of the request's name: a UUID of
  -- version 8 (RFC 9562).
  digest := set_byte(digest, 6, get_byte(digest, 6) & 15 | 128);
  digest := set_byte(digest, 8, get_byte(digest, 8) & 63 | 128);
  absent.workspace_id := coalesce(
    create_workspace.id, encode(substr(digest, 1, 16), 'hex')::uuid, gen_random_uuid()
  );
  absent.version := 0;
  absent.model_is_unreadable := false;

  perform workspace.hold();
  absent.with_key := keyring.active_key();
  absent.next_position := workspace.own_position();
  moment := clock_timestamp();
  answer := workspace.recorded_answer(
    absent.with_key, absent.workspace_id, request, 'create_workspace', target, wanted, false, called
  );
  if answer.workspace_id is not null then
    return answer;
  end if;
  decided := workspace.choose_model(absent, target, wanted, false);

  begin
    insert into workspace.workspaces (id, name, runtime, version, created_at, updated_at, position)
    values (absent.workspace_id, called, target, 1, moment, moment, absent.next_position);
    -- An id is never used again: the history under it belongs to the workspace that was, and has this version.
    return workspace.write_change(absent, decided, 'create_workspace', request_id => request, name => called);
  exception
    when unique_violation then
      answer := workspace.recorded_answer(
        absent.with_key, absent.workspace_id, request, 'create_workspace', target, wanted, false, called
      );
      if answer.workspace_id is not null then
        return answer;
      end if;
      raise exception using
        errcode = 'PT409',
        message = format('The workspace id %s is taken.', absent.workspace_id),
        detail = jsonb_build_object('code', 'WORKSPACE_EXISTS', 'workspace_id', absent.workspace_id),
        hint = 'Leave id out to get a new one. The id of a deleted workspace stays taken.';
  end;
end
$$;


--
-- Name: FUNCTION create_workspace(name text, runtime text, model text, id uuid, request_id text); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.create_workspace(name text, runtime text, model text, id uuid, request_id text) IS 'Creates a workspace. Strict on the pair: a model that is not registered for the runtime is refused.
name: what people call it; need not be unique. runtime: its runtime. model: its model; null: none yet. id: its id; null: a new one.
request_id: the caller''s name for this request; repeated by the same actor, it gets the recorded answer and creates nothing.
Errors: INVALID_ARGUMENT, WORKSPACE_EXISTS, REQUEST_ID_REUSED, RUNTIME_UNSUPPORTED, MODEL_NOT_REGISTERED, REGISTRY_UNAVAILABLE,
ENCRYPTION_KEY_MISSING. Above READ COMMITTED, 40001 if the registry was loaded meanwhile.';


--
-- Name: credentials(uuid); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.credentials(ws uuid) RETURNS text[]
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return array(
    select s.key::text
    from workspace.secrets as s
    where s.workspace_id = credentials.ws and s.key <> 'MODEL'
    order by s.key
  );
end
$$;


--
-- Name: FUNCTION credentials(ws uuid); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.credentials(ws uuid) IS 'Internal: the names of a workspace''s secrets besides MODEL. Where several providers list a model, they may decide who serves it.';


--
-- Name: delete_secret(uuid, text, bigint); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.delete_secret(ws uuid, name text, expected_version bigint DEFAULT NULL::bigint) RETURNS workspace.change
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
  called constant text collate "C" := workspace.secret_name(delete_secret.name);
  current workspace.snapshot;
begin
  current := workspace.lock_workspace(delete_secret.ws, needs_key => false);
  if delete_secret.expected_version <> current.version then
    perform workspace.version_conflict(current.workspace_id, current.version, delete_secret.expected_version);
  end if;

  delete from workspace.secrets as s where s.workspace_id = current.workspace_id and s.key = called;
  return workspace.write_secret_change(current, called, 'delete_secret', found);
end
$$;


--
-- Name: FUNCTION delete_secret(ws uuid, name text, expected_version bigint); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.delete_secret(ws uuid, name text, expected_version bigint) IS 'Removes a secret of a workspace, readable or not; without such a secret it changes nothing.
ws: the workspace. name: the secret''s name; MODEL is refused, see workspace.clear_model. expected_version: refuse unless the workspace is at
this version.
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, VERSION_CONFLICT. Above READ COMMITTED, 40001 if the registry was loaded meanwhile.';


--
-- Name: delete_workspace(uuid, bigint); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.delete_workspace(ws uuid, expected_version bigint DEFAULT NULL::bigint) RETURNS workspace.change
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
  current workspace.snapshot;
  decided workspace.decision;
begin
  current := workspace.lock_workspace(delete_workspace.ws, needs_key => false);
  if delete_workspace.expected_version <> current.version then
    perform workspace.version_conflict(current.workspace_id, current.version, delete_workspace.expected_version);
  end if;

  -- No runtime and no model, so nobody serves it and nobody pays; changed.
  decided := (null, null, 'none', null, null, false, null, true, false);
  delete from workspace.secrets as s where s.workspace_id = current.workspace_id;
  delete from workspace.workspaces as w where w.id = current.workspace_id;
  return workspace.write_change(current, decided, 'delete_workspace');
end
$$;


--
-- Name: FUNCTION delete_workspace(ws uuid, expected_version bigint); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.delete_workspace(ws uuid, expected_version bigint) IS 'Deletes a workspace and all its secrets. Its history stays, and its id stays taken.
ws: the workspace. expected_version: refuse unless the workspace is at this version.
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, VERSION_CONFLICT. Above READ COMMITTED, 40001 if the registry was loaded
meanwhile.';


--
-- Name: describe_change(workspace.snapshot, workspace.decision, text); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.describe_change(current workspace.snapshot, decided workspace.decision, action text) RETURNS workspace.change
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return (
    current.workspace_id,
    current.version,
    decided.changed,
    current.runtime,  -- previous_runtime
    decided.runtime,
    current.model,  -- previous_model
    decided.model,
    decided.model_source,
    decided.model_source in ('restored', 'equivalent', 'default'),  -- model_was_reset
    decided.provider,
    decided.billed_to,
    decided.billing_changed,
    decided.changed and describe_change.action not in ('create_workspace', 'delete_workspace'),  -- needs_restart
    decided.model_deprecated,
    decided.model_sunset_at
  )::workspace.change;
end
$$;


--
-- Name: FUNCTION describe_change(current workspace.snapshot, decided workspace.decision, action text); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.describe_change(current workspace.snapshot, decided workspace.decision, action text) IS 'Internal: what a decision changes, as its caller is told it, but at the version that it was decided on.';


--
-- Name: entry_of(keyring.data_key, workspace.changes); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.entry_of(with_key keyring.data_key, recorded workspace.changes) RETURNS workspace.history_entry
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  entry workspace.history_entry;
begin
  entry.workspace_id := recorded.workspace_id;
  entry.version := recorded.version;
  entry.action := recorded.action;
  entry.changed := recorded.changed;
  entry.previous_runtime := recorded.previous_runtime;
  entry.runtime := recorded.runtime;
  entry.previous_model := keyring.unseal(
    with_key, recorded.workspace_id, 'MODEL', recorded.previous_sealed, recorded.previous_key_id
  );
  entry.model := keyring.unseal(with_key, recorded.workspace_id, 'MODEL', recorded.sealed, recorded.key_id);
  entry.model_source := recorded.model_source;
  entry.provider := recorded.provider;
  entry.billed_to := recorded.billed_to;
  entry.actor := recorded.actor;
  entry.request_id := recorded.request_id;
  entry.changed_at := recorded.changed_at;
  entry.secret := recorded.secret;
  entry.name := recorded.name;
  return entry;
end
$$;


--
-- Name: FUNCTION entry_of(with_key keyring.data_key, recorded workspace.changes); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.entry_of(with_key keyring.data_key, recorded workspace.changes) IS 'Internal: a row of changes as whoever looks at the history is told it.';


--
-- Name: get_secret(uuid, text); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.get_secret(ws uuid, name text) RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
  called constant text collate "C" := workspace.secret_name(get_secret.name);
  stored keyring.sealed_value;
  value text;
begin
  if get_secret.ws is null then
    perform registry.invalid_argument('ws', 'is null');
  end if;

  select s.sealed, s.key_id
  into stored
  from workspace.secrets as s
  where s.workspace_id = get_secret.ws and s.key = called;
  if not found then
    if not exists (select from workspace.workspaces as w where w.id = get_secret.ws) then
      perform workspace.workspace_not_found(get_secret.ws);
    end if;
    raise exception using
      errcode = 'PT404',
      message = 'The workspace has no secret of this name.',
      detail = jsonb_build_object('code', 'SECRET_NOT_FOUND', 'workspace_id', get_secret.ws, 'secret', called),
      hint = 'Call workspace.list_secrets to see the names of those it has.';
  end if;

  value := keyring.unseal(keyring.active_key(), get_secret.ws, called, stored.sealed, stored.key_id);
  if value is null then
    raise exception using
      errcode = 'PT500',
      message = 'This secret cannot be read.',
      detail = jsonb_build_object('code', 'SECRET_UNREADABLE', 'workspace_id', get_secret.ws, 'secret', called),
      hint = 'Replace or remove it with workspace.set_secret or workspace.delete_secret.';
  end if;
  return value;
end
$$;


--
-- Name: FUNCTION get_secret(ws uuid, name text); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.get_secret(ws uuid, name text) IS 'The value of a workspace''s secret.
ws: the workspace. name: the secret''s name; MODEL is refused, see workspace.get_workspace.
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, SECRET_NOT_FOUND, SECRET_UNREADABLE, ENCRYPTION_KEY_MISSING.';


--
-- Name: get_workspace(uuid); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.get_workspace(ws uuid) RETURNS workspace.state
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
  -- A stable function and all it calls see one snapshot: the pair, its routing and its version belong together.
  current constant workspace.snapshot := workspace.read_workspace(get_workspace.ws);
  routing registry.routing;
  state workspace.state;
begin
  if current.model_is_unreadable then
    perform workspace.secret_unreadable(current.workspace_id);
  end if;
  if current.model is not null then
    routing := workspace.route(current.workspace_id, current.runtime, current.model);
  end if;

  select
    w.id, w.name, w.runtime, current.model, routing.routable, routing.provider, routing.billed_to,
    w.version, w.created_at, w.updated_at, coalesce(routing.deprecated, false), routing.sunset_at
  into state
  from workspace.workspaces as w
  where w.id = current.workspace_id;
  return state;
end
$$;


--
-- Name: FUNCTION get_workspace(ws uuid); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.get_workspace(ws uuid) IS 'A workspace as it is: runtime, model, provider, billing and version, all of one moment.
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, SECRET_UNREADABLE, ENCRYPTION_KEY_MISSING.';


--
-- Name: history(uuid); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.history(ws uuid) RETURNS SETOF workspace.history_entry
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
  with_key keyring.data_key;
  recorded workspace.changes;
begin
  if history.ws is null then
    perform registry.invalid_argument('ws', 'is null');
  end if;

  with_key := keyring.active_key();
  for recorded in
    select c.* from workspace.changes as c where c.workspace_id = history.ws order by c.version
  loop
    return next workspace.entry_of(with_key, recorded);
  end loop;
  if not found then
    perform workspace.workspace_not_found(history.ws);
  end if;
end
$$;


--
-- Name: FUNCTION history(ws uuid); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.history(ws uuid) IS 'Every change of a workspace, oldest first; of a deleted one too.
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, ENCRYPTION_KEY_MISSING.';


--
-- Name: hold(); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.hold() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if current_setting('transaction_isolation') = 'read committed' then
    -- registry.hold and keyring.hold in one statement.
    lock table registry.state, keyring.keys in row share mode;
  else
    -- They lock rows, too: that of the registry before the table of keys, as keyring.init does.
    perform registry.hold();
    perform keyring.hold();
  end if;
end
$$;


--
-- Name: FUNCTION hold(); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.hold() IS 'Internal: keeps the registry and the keyring as they are until the transaction ends. Raises 40001 if the transaction''s snapshot is older.';


--
-- Name: keep_pair(workspace.snapshot, text[]); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.keep_pair(current workspace.snapshot, credentials text[]) RETURNS workspace.decision
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  routing constant registry.routing := registry.route(
    current.runtime, current.model, keep_pair.credentials
  );
begin
  return (
    current.runtime,
    current.model,
    case when current.sealed is null then 'none' else 'kept' end,
    routing.provider,
    routing.billed_to,
    coalesce(routing.deprecated, false),
    routing.sunset_at,
    false,
    false
  )::workspace.decision;
end
$$;


--
-- Name: FUNCTION keep_pair(current workspace.snapshot, credentials text[]); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.keep_pair(current workspace.snapshot, credentials text[]) IS 'Internal: the decision that a workspace keeps its pair, even one that a newer registry does not have, or that cannot be read.
credentials: the names of its secrets besides MODEL.';


--
-- Name: key_uses(boolean); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.key_uses(verify boolean) RETURNS SETOF workspace.key_use
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  with_key constant keyring.data_key := case when key_uses.verify then keyring.active_key() end;
  stored record;
  counted workspace.key_use;
begin
  -- Row by row, so that the key stays out of queries (see sql/keyring/tables.sql).
  for stored in
    select s.workspace_id, s.key as name, s.sealed, s.key_id, true as is_secret
    from workspace.secrets as s
    union all
    select c.workspace_id, 'MODEL', c.sealed, c.key_id, false
    from workspace.changes as c
    where c.sealed is not null
    union all
    select c.workspace_id, 'MODEL', c.previous_sealed, c.previous_key_id, false
    from workspace.changes as c
    where c.previous_sealed is not null
  loop
    counted.key_id := stored.key_id;
    counted.secrets := stored.is_secret::integer;
    counted.history := (not stored.is_secret)::integer;
    counted.unreadable := (
      key_uses.verify
      and keyring.unseal(with_key, stored.workspace_id, stored.name, stored.sealed, stored.key_id) is null
    )::integer;
    return next counted;
  end loop;
end
$$;


--
-- Name: FUNCTION key_uses(verify boolean); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.key_uses(verify boolean) IS 'Internal: a row for every value that is stored: which key sealed it and, with verify, whether it opens.';


--
-- Name: list_secrets(uuid); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.list_secrets(ws uuid) RETURNS SETOF workspace.secret_entry
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
begin
  if list_secrets.ws is null then
    perform registry.invalid_argument('ws', 'is null');
  elsif not exists (select from workspace.workspaces as w where w.id = list_secrets.ws) then
    perform workspace.workspace_not_found(list_secrets.ws);
  end if;

  return query
    select s.key::text, s.updated_at
    from workspace.secrets as s
    where s.workspace_id = list_secrets.ws
    order by s.key;
end
$$;


--
-- Name: FUNCTION list_secrets(ws uuid); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.list_secrets(ws uuid) IS 'The names of a workspace''s secrets, MODEL among them; never a value, and no key-encryption key is needed.
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND.';


--
-- Name: lock_workspace(uuid, text, boolean); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.lock_workspace(ws uuid, runtime text DEFAULT NULL::text, needs_key boolean DEFAULT true) RETURNS workspace.snapshot
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  current workspace.snapshot;
  active keyring.keys;
  unlocked keyring.unlocked;
  last_position bigint;
begin
  -- As workspace.hold, which nearly every call would have to call.
  if current_setting('transaction_isolation') = 'read committed' then
    lock table registry.state, keyring.keys in row share mode;
  else
    perform workspace.hold();
  end if;

  -- Whoever changes the runtime or the secrets of a workspace holds its row, so what is read next stays so. The lock and
  -- the reading are two statements on purpose: a statement that had to wait would see the row anew, but the secret as it
  -- was before the wait. A row that is not there yet cannot be locked, and must not be read either: the next statement
  -- might see it.
  select w.id, w.runtime, w.version, w.position
  into current.workspace_id, current.runtime, current.version, last_position
  from workspace.workspaces as w
  where w.id = lock_workspace.ws
  for no key update;
  if not found then
    if lock_workspace.runtime is not null then
      perform registry.require_runtime(lock_workspace.runtime);
    end if;
    perform workspace.workspace_not_found(lock_workspace.ws);
  end if;

  loop
    -- The place in the feed: not below our own transaction id (as workspace.own_position), for readers are given what lies
    -- below the oldest transaction still running, and this is not visible yet. Not below the change before: its transaction
    -- may be the younger one, if it got the workspace first. (It is over, or our own. Equal positions go by version.)
    select s.sealed, s.key_id, k.id, k.wrapped, greatest((n.era << 45) + pg_current_xact_id()::text::bigint, last_position)
    into current.sealed, current.key_id, active.id, active.wrapped, current.next_position
    from workspace.numbering as n
    left join workspace.secrets as s on s.workspace_id = lock_workspace.ws and s.key = 'MODEL'
    left join keyring.keys as k on k.retired_at is null  -- the active one; they are few, and an index costs more
    where n.made_in = n.tableoid and n.made_by = n.xmin;
    exit when found;
    perform workspace.begin_era();
  end loop;

  unlocked := keyring.unlock(
    active, lock_workspace.needs_key, current.workspace_id, 'MODEL', current.sealed, current.key_id
  );
  current.with_key := unlocked.with_key;
  current.model := unlocked.value;
  current.model_is_unreadable := current.sealed is not null and current.model is null;
  return current;
end
$$;


--
-- Name: FUNCTION lock_workspace(ws uuid, runtime text, needs_key boolean); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.lock_workspace(ws uuid, runtime text, needs_key boolean) IS 'Internal: keeps the registry, the keyring and a workspace as they are until the transaction ends, and reads the workspace.
Raises as read_workspace does; of a workspace that is not there it says first, where a runtime is given, that this is not there either.';


--
-- Name: own_position(); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.own_position() RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  own_position bigint;
begin
  loop
    select (n.era << 45) + pg_current_xact_id()::text::bigint
    into own_position
    from workspace.numbering as n
    where n.made_in = n.tableoid and n.made_by = n.xmin;
    exit when found;
    perform workspace.begin_era();
  end loop;
  return own_position;
end
$$;


--
-- Name: FUNCTION own_position(); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.own_position() IS 'Internal: the lowest position that a change of this transaction can have: that of a workspace''s first change.';


--
-- Name: preview_runtime_change(uuid, text, text, boolean); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.preview_runtime_change(ws uuid, runtime text, model text DEFAULT NULL::text, restore boolean DEFAULT false) RETURNS workspace.change
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
  target constant text collate "C" := registry.clean_text(preview_runtime_change.runtime, 'runtime');
  wanted constant text collate "C" :=
    case when preview_runtime_change.model is not null then registry.clean_text(preview_runtime_change.model, 'model') end;
  current workspace.snapshot;
  decided workspace.decision;
begin
  if preview_runtime_change.restore is null then
    perform registry.invalid_argument('restore', 'is null');
  end if;

  perform registry.require_runtime(target);
  current := workspace.read_workspace(preview_runtime_change.ws);
  decided := workspace.choose_model(current, target, wanted, preview_runtime_change.restore);
  return workspace.describe_change(current, decided, 'change_runtime');
end
$$;


--
-- Name: FUNCTION preview_runtime_change(ws uuid, runtime text, model text, restore boolean); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.preview_runtime_change(ws uuid, runtime text, model text, restore boolean) IS 'What workspace.change_runtime would answer now, without writing or locking anything.
The arguments are those of change_runtime. The version is the one the answer was decided on: given to change_runtime as expected_version, it makes
sure that the workspace is still the same. (The registry may have changed.)
Errors: as change_runtime.';


--
-- Name: read_workspace(uuid, boolean); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.read_workspace(ws uuid, needs_key boolean DEFAULT true) RETURNS workspace.snapshot
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  snapshot workspace.snapshot;
  active keyring.keys;
  unlocked keyring.unlocked;
begin
  select
    w.id, w.runtime, w.version, s.sealed, s.key_id,
    k.id, k.wrapped
  into
    snapshot.workspace_id, snapshot.runtime, snapshot.version, snapshot.sealed, snapshot.key_id,
    active.id, active.wrapped
  from workspace.workspaces as w
  left join workspace.secrets as s on s.workspace_id = w.id and s.key = 'MODEL'
  left join keyring.keys as k on k.retired_at is null  -- the active one; they are few, and an index costs more
  where w.id = read_workspace.ws;
  if not found then
    perform workspace.workspace_not_found(read_workspace.ws);
  end if;

  unlocked := keyring.unlock(
    active, read_workspace.needs_key, snapshot.workspace_id, 'MODEL', snapshot.sealed, snapshot.key_id
  );
  snapshot.with_key := unlocked.with_key;
  snapshot.model := unlocked.value;
  snapshot.model_is_unreadable := snapshot.sealed is not null and snapshot.model is null;
  return snapshot;
end
$$;


--
-- Name: FUNCTION read_workspace(ws uuid, needs_key boolean); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.read_workspace(ws uuid, needs_key boolean) IS 'Internal: a workspace''s runtime, version and model, and the key that seals.
Raises INVALID_ARGUMENT, WORKSPACE_NOT_FOUND and, unless it can do without the key, ENCRYPTION_KEY_MISSING.';


--
-- Name: recorded_answer(keyring.data_key, uuid, text, text, text, text, boolean, text); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.recorded_answer(with_key keyring.data_key, ws uuid, request_id text, action text, runtime text, model text, restore boolean, name text DEFAULT NULL::text) RETURNS workspace.change
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  recorded workspace.changes;
  answer workspace.change;
begin
  if recorded_answer.request_id is null then
    return null;
  end if;
  select c.*
  into recorded
  from workspace.changes as c
  where c.workspace_id = recorded_answer.ws and c.request_id = recorded_answer.request_id;
  if not found then
    return null;
  end if;

  answer := workspace.change_of(
    recorded,
    keyring.unseal(with_key, recorded.workspace_id, 'MODEL', recorded.previous_sealed, recorded.previous_key_id),
    keyring.unseal(with_key, recorded.workspace_id, 'MODEL', recorded.sealed, recorded.key_id)
  );

  if recorded.sealed is not null and answer.model is null and recorded.action = recorded_answer.action then
    perform workspace.secret_unreadable(recorded_answer.ws);
  end if;

  -- What was asked for can be read off what was done. The version that was expected is a condition of the request, not a
  -- part of it.
  if recorded.action <> recorded_answer.action
    or recorded.runtime is distinct from coalesce(recorded_answer.runtime, recorded.previous_runtime)
    or recorded.restore <> recorded_answer.restore
    or recorded.name is distinct from recorded_answer.name
    or (case when recorded.model_source = 'requested' then answer.model end) is distinct from recorded_answer.model
  then
    raise exception using
      errcode = 'PT422',
      message = 'The request_id was already used for a different request on this workspace.',
      detail = jsonb_build_object('code', 'REQUEST_ID_REUSED', 'workspace_id', recorded_answer.ws),
      hint = 'Take a new request_id for a new request.';
  end if;
  return answer;
end
$$;


--
-- Name: FUNCTION recorded_answer(with_key keyring.data_key, ws uuid, request_id text, action text, runtime text, model text, restore boolean, name text); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.recorded_answer(with_key keyring.data_key, ws uuid, request_id text, action text, runtime text, model text, restore boolean, name text) IS 'Internal: the answer recorded for this request, null if there is none. Raises REQUEST_ID_REUSED if it was a different request.';


--
-- Name: rename_workspace(uuid, text, text, text, boolean, bigint, text); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.rename_workspace(ws uuid, name text, runtime text DEFAULT NULL::text, model text DEFAULT NULL::text, restore boolean DEFAULT false, expected_version bigint DEFAULT NULL::bigint, request_id text DEFAULT NULL::text) RETURNS workspace.change
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
  called constant text collate "C" := registry.clean_text(rename_workspace.name, 'name');
  target constant text collate "C" :=
    case when rename_workspace.runtime is not null then registry.clean_text(rename_workspace.runtime, 'runtime') end;
  wanted constant text collate "C" :=
    case when rename_workspace.model is not null then registry.clean_text(rename_workspace.model, 'model') end;
  request constant text collate "C" :=
    case when rename_workspace.request_id is not null then registry.clean_text(rename_workspace.request_id, 'request_id') end;
  current workspace.snapshot;
  answer workspace.change;
  decided workspace.decision;
begin
  if rename_workspace.restore is null then
    perform registry.invalid_argument('restore', 'is null');
  elsif rename_workspace.restore and target is null then
    perform registry.invalid_argument('restore', 'needs a runtime');
  end if;

  current := workspace.lock_workspace(rename_workspace.ws);

  answer := workspace.recorded_answer(
    current.with_key, current.workspace_id, request, 'rename_workspace', target, wanted, rename_workspace.restore, called
  );
  if answer.workspace_id is not null then
    return answer;
  end if;

  if target is not null then
    perform registry.require_runtime(target);
  end if;
  if rename_workspace.expected_version <> current.version then
    perform workspace.version_conflict(current.workspace_id, current.version, rename_workspace.expected_version);
  end if;

  if target is not null or wanted is not null then
    decided := workspace.choose_model(
      current, coalesce(target, current.runtime), wanted, rename_workspace.restore
    );
  elsif current.model_is_unreadable then
    perform workspace.secret_unreadable(current.workspace_id);
  else
    -- The pair stays as it is, even one that a newer registry does not have.
    decided := workspace.keep_pair(current, workspace.credentials(current.workspace_id));
  end if;
  return workspace.write_change(
    current, decided, 'rename_workspace', rename_workspace.restore, request, called
  );
end
$$;


--
-- Name: FUNCTION rename_workspace(ws uuid, name text, runtime text, model text, restore boolean, expected_version bigint, request_id text); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.rename_workspace(ws uuid, name text, runtime text, model text, restore boolean, expected_version bigint, request_id text) IS 'Gives a workspace another name and, in the same change, another runtime or model where they are given.
ws: the workspace. name: its new name; need not be unique. runtime, restore: as in workspace.change_runtime; null: it keeps its runtime. model:
strict, it must be registered for the runtime; null: as change_runtime decides, or with no runtime the one it has.
expected_version: refuse unless the workspace is at this version. request_id: the caller''s name for this request; repeated, it gets the
recorded answer and changes nothing.
Errors: as change_runtime.';


--
-- Name: reseal_workspace(keyring.data_key, uuid); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.reseal_workspace(with_key keyring.data_key, ws uuid) RETURNS keyring.reseal_progress
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  active_id constant integer := with_key.key_id;
  progress keyring.reseal_progress := (null, 0, 0, 0);
  secret workspace.secrets;
  change workspace.changes;
  resealed keyring.sealed_value;
begin
  -- Never waits, so that it is no part of a deadlock with somebody who holds several workspaces.
  perform from workspace.workspaces as w where w.id = reseal_workspace.ws for no key update skip locked;
  if not found and exists (select from workspace.workspaces as w where w.id = reseal_workspace.ws) then
    progress.skipped := 1;
    return progress;
  end if;

  for secret in
    select s.*
    from workspace.secrets as s
    where s.workspace_id = reseal_workspace.ws and s.key_id is distinct from active_id
  loop
    resealed := keyring.reseal_value(with_key, secret.workspace_id, secret.key, secret.sealed, secret.key_id);
    if resealed.sealed is null then
      progress.unreadable := progress.unreadable + 1;
    else
      update workspace.secrets as s
      set sealed = resealed.sealed, key_id = resealed.key_id
      where s.workspace_id = secret.workspace_id and s.key = secret.key;
      progress.resealed := progress.resealed + 1;
    end if;
  end loop;

  for change in
    select c.*
    from workspace.changes as c
    where c.workspace_id = reseal_workspace.ws and c.sealed is not null and c.key_id is distinct from active_id
  loop
    resealed := keyring.reseal_value(with_key, change.workspace_id, 'MODEL', change.sealed, change.key_id);
    if resealed.sealed is null then
      progress.unreadable := progress.unreadable + 1;
    else
      update workspace.changes as c
      set sealed = resealed.sealed, key_id = resealed.key_id
      where c.workspace_id = change.workspace_id and c.version = change.version;
      progress.resealed := progress.resealed + 1;
    end if;
  end loop;

  for change in
    select c.*
    from workspace.changes as c
    where c.workspace_id = reseal_workspace.ws
      and c.previous_sealed is not null
      and c.previous_key_id is distinct from active_id
  loop
    resealed := keyring.reseal_value(with_key, change.workspace_id, 'MODEL', change.previous_sealed, change.previous_key_id);
    if resealed.sealed is null then
      progress.unreadable := progress.unreadable + 1;
    else
      update workspace.changes as c
      set previous_sealed = resealed.sealed, previous_key_id = resealed.key_id
      where c.workspace_id = change.workspace_id and c.version = change.version;
      progress.resealed := progress.resealed + 1;
    end if;
  end loop;
  return progress;
end
$$;


--
-- Name: FUNCTION reseal_workspace(with_key keyring.data_key, ws uuid); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.reseal_workspace(with_key keyring.data_key, ws uuid) IS 'Internal: seals with this key what a workspace and its history store plain or under another one.';


--
-- Name: route(uuid, text, text); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.route(ws uuid, runtime text, model text) RETURNS registry.routing
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  return registry.route(route.runtime, route.model, workspace.credentials(route.ws));
end
$$;


--
-- Name: FUNCTION route(ws uuid, runtime text, model text); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.route(ws uuid, runtime text, model text) IS 'Internal: registry.route with the credentials of a workspace.';


--
-- Name: secret_name(text); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.secret_name(name text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  called constant text collate "C" := registry.clean_text(secret_name.name, 'name');
begin
  -- What becomes a variable of an agent's environment, or a file: nothing that could pass for another name.
  if translate(called, 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-./', '') <> '' then
    perform registry.invalid_argument('name', 'may only have ASCII letters, digits and _ - . /');
  end if;

  -- No side door past the registry: agents read MODEL from their environment, some of them whatever its case.
  if upper(called) = 'MODEL' then
    perform registry.invalid_argument('name', 'is MODEL: use set_model, clear_model or get_workspace');
  end if;
  return called;
end
$$;


--
-- Name: FUNCTION secret_name(name text); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.secret_name(name text) IS 'Internal: the name of a secret that is not the model, as registry.clean_text leaves it. Raises INVALID_ARGUMENT.';


--
-- Name: secret_unreadable(uuid); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.secret_unreadable(ws uuid) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  raise exception using
    errcode = 'PT500',
    message = 'The model of this workspace cannot be read.',
    detail = jsonb_build_object('code', 'SECRET_UNREADABLE', 'workspace_id', secret_unreadable.ws),
    hint = 'Name a model when you change the runtime, or call workspace.set_model or workspace.clear_model: they replace it.';
end
$$;


--
-- Name: FUNCTION secret_unreadable(ws uuid); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.secret_unreadable(ws uuid) IS 'Internal: raises SECRET_UNREADABLE.';


--
-- Name: set_model(uuid, text, bigint, text); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.set_model(ws uuid, model text, expected_version bigint DEFAULT NULL::bigint, request_id text DEFAULT NULL::text) RETURNS workspace.change
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
  wanted constant text collate "C" := registry.clean_text(set_model.model, 'model');
  request constant text collate "C" :=
    case when set_model.request_id is not null then registry.clean_text(set_model.request_id, 'request_id') end;
  current workspace.snapshot;
  answer workspace.change;
  decided workspace.decision;
begin
  current := workspace.lock_workspace(set_model.ws);

  answer := workspace.recorded_answer(current.with_key, current.workspace_id, request, 'set_model', null, wanted, false);
  if answer.workspace_id is not null then
    return answer;
  end if;

  if set_model.expected_version <> current.version then
    perform workspace.version_conflict(current.workspace_id, current.version, set_model.expected_version);
  end if;
  decided := workspace.choose_model(current, current.runtime, wanted, false);
  return workspace.write_change(current, decided, 'set_model', false, request);
end
$$;


--
-- Name: FUNCTION set_model(ws uuid, model text, expected_version bigint, request_id text); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.set_model(ws uuid, model text, expected_version bigint, request_id text) IS 'Gives a workspace the model that the caller chose.
Strict: a model that is not registered for the workspace''s runtime is refused with the list of those that are; it never chooses another.
ws: the workspace. model: the model id. expected_version: refuse unless the workspace is at this version. request_id: the caller''s
name for this request; repeated, it gets the recorded answer and changes nothing.
It also replaces a model that cannot be read any more.
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, VERSION_CONFLICT, MODEL_NOT_REGISTERED, REQUEST_ID_REUSED, ENCRYPTION_KEY_MISSING. Above
READ COMMITTED, 40001 if the registry was loaded meanwhile.';


--
-- Name: set_secret(uuid, text, text, bigint); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.set_secret(ws uuid, name text, value text, expected_version bigint DEFAULT NULL::bigint) RETURNS workspace.change
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
  called constant text collate "C" := workspace.secret_name(set_secret.name);
  current workspace.snapshot;
  stored keyring.sealed_value;
begin
  -- The value is kept as it is: white space and line breaks belong to it.
  if set_secret.value is null then
    perform registry.invalid_argument('value', 'is null');
  elsif set_secret.value = '' then
    perform registry.invalid_argument('value', 'is blank');
  elsif octet_length(set_secret.value) > 1048576 then
    perform registry.invalid_argument('value', 'is longer than 1048576 bytes');
  end if;

  current := workspace.lock_workspace(set_secret.ws);
  if set_secret.expected_version <> current.version then
    perform workspace.version_conflict(current.workspace_id, current.version, set_secret.expected_version);
  end if;

  select s.sealed, s.key_id
  into stored
  from workspace.secrets as s
  where s.workspace_id = current.workspace_id and s.key = called;
  if keyring.unseal(current.with_key, current.workspace_id, called, stored.sealed, stored.key_id) = set_secret.value then
    return workspace.write_secret_change(current, called, 'set_secret', false);
  end if;
  -- Sealed before it is written: a plain value must never reach a table or the WAL.
  stored := keyring.seal(current.with_key, current.workspace_id, called, set_secret.value);
  return workspace.write_secret_change(current, called, 'set_secret', true, stored);
end
$$;


--
-- Name: FUNCTION set_secret(ws uuid, name text, value text, expected_version bigint); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.set_secret(ws uuid, name text, value text, expected_version bigint) IS 'Gives a workspace a secret, such as a provider''s credential, or replaces it.
ws: the workspace. name: the secret''s name, such as MOONSHOT_API_KEY (ASCII letters, digits and _ - . /). value: kept as it is, 1 to 1048576 bytes. expected_version: refuse unless
the workspace is at this version.
The same value again changes nothing. The name MODEL is refused: the registry judges models, see workspace.set_model.
The names of its secrets tell which provider serves a workspace''s model, where several do (auth_env in the manifest).
Errors: INVALID_ARGUMENT, WORKSPACE_NOT_FOUND, VERSION_CONFLICT, ENCRYPTION_KEY_MISSING. Above READ COMMITTED, 40001 if the registry was
loaded meanwhile.';


--
-- Name: version_conflict(uuid, bigint, bigint); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.version_conflict(ws uuid, version bigint, expected_version bigint) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  raise exception using
    errcode = 'PT409',
    message = format(
      'The workspace is at version %s, not at the expected %s.',
      version_conflict.version,
      version_conflict.expected_version
    ),
    detail = jsonb_build_object(
      'code', 'VERSION_CONFLICT',
      'workspace_id', version_conflict.ws,
      'expected_version', version_conflict.expected_version,
      'version', version_conflict.version
    ),
    hint = 'Somebody else changed the workspace. Read it again and decide anew.';
end
$$;


--
-- Name: FUNCTION version_conflict(ws uuid, version bigint, expected_version bigint); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.version_conflict(ws uuid, version bigint, expected_version bigint) IS 'Internal: raises VERSION_CONFLICT.';


--
-- Name: workspace_not_found(uuid); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.workspace_not_found(ws uuid) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  if workspace_not_found.ws is null then
    perform registry.invalid_argument('ws', 'is null');
  end if;
  raise exception using
    errcode = 'PT404',
    message = format('There is no workspace %s.', workspace_not_found.ws),
    detail = jsonb_build_object('code', 'WORKSPACE_NOT_FOUND', 'workspace_id', workspace_not_found.ws),
    hint = 'It was deleted, or never created; workspace.history shows which.';
end
$$;


--
-- Name: FUNCTION workspace_not_found(ws uuid); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.workspace_not_found(ws uuid) IS 'Internal: raises WORKSPACE_NOT_FOUND; INVALID_ARGUMENT for null.';


--
-- Name: write_change(workspace.snapshot, workspace.decision, text, boolean, text, text, text, keyring.sealed_value); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.write_change(current workspace.snapshot, decided workspace.decision, action text, restore boolean DEFAULT false, request_id text DEFAULT NULL::text, name text DEFAULT NULL::text, secret text DEFAULT NULL::text, secret_value keyring.sealed_value DEFAULT NULL::keyring.sealed_value) RETURNS workspace.change
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  answer workspace.change := workspace.describe_change(
    write_change.current, write_change.decided, write_change.action
  );
  model keyring.sealed_value;
  stored keyring.sealed_value := write_change.secret_value;
  stored_as text := case when secret_value.sealed is not null then write_change.secret end;
  actor text;
  changed_at timestamptz;
  txid xid8;
begin
  if write_change.name is not null and not answer.changed then
    answer.changed := (
      select w.name <> write_change.name from workspace.workspaces as w where w.id = answer.workspace_id
    );
  end if;

  -- Nothing to do writes nothing, unless the caller may come back for this answer: then it is recorded, so that a late
  -- replay cannot undo what happened in between.
  if not answer.changed and write_change.request_id is null then
    return answer;
  end if;

  -- A model that stays keeps its bytes. Another one is sealed first: a plain value must never reach a table or the WAL.
  if decided.model_source = 'none' then
    if current.sealed is not null then
      delete from workspace.secrets as s where s.workspace_id = answer.workspace_id and s.key = 'MODEL';
    end if;
  elsif decided.model_source = 'kept' or decided.model = current.model then
    model := (current.sealed, current.key_id);
  else
    model := keyring.seal(current.with_key, current.workspace_id, 'MODEL', decided.model);
    stored := model;
    stored_as := 'MODEL';
  end if;

  answer.version := current.version + 1;
  actor := workspace.actor();
  changed_at := clock_timestamp();
  txid := pg_current_xact_id();
  -- One statement: three would cost much more. (With the update at its end it can be distributed, too.)
  with written as (
    insert into workspace.secrets as s (workspace_id, key, sealed, key_id, updated_at)
    select answer.workspace_id, stored_as, stored.sealed, stored.key_id, changed_at
    where stored_as is not null
    on conflict (workspace_id, key) do update set
      sealed = excluded.sealed,
      key_id = excluded.key_id,
      updated_at = excluded.updated_at
  ),
  recorded as (
    insert into workspace.changes (
      workspace_id, version, action, changed, previous_runtime, runtime,
      previous_sealed,
      previous_key_id,
      sealed, key_id,
      model_source, provider, billed_to, billing_changed,
      restore, actor, request_id, changed_at, txid, secret,
      model_deprecated, model_sunset_at, position, name
    )
    values (
      answer.workspace_id, answer.version, write_change.action, answer.changed, answer.previous_runtime, answer.runtime,
      case when not current.model_is_unreadable or decided.model_source = 'kept' then current.sealed end,
      case when not current.model_is_unreadable or decided.model_source = 'kept' then current.key_id end,
      model.sealed, model.key_id,
      answer.model_source, answer.provider, answer.billed_to, answer.billing_changed,
      write_change.restore, actor, write_change.request_id, changed_at, txid, write_change.secret,
      answer.model_deprecated, answer.model_sunset_at, current.next_position, write_change.name
    )
  )
  -- Not a workspace that this very change has made, or deleted.
  update workspace.workspaces as w
  set
    name = coalesce(write_change.name, w.name),
    runtime = answer.runtime,
    version = answer.version,
    updated_at = changed_at,
    position = current.next_position
  where w.id = answer.workspace_id and w.version < answer.version;

  -- Off unless asked for: transactions that notify commit one after the other.
  if current_setting('runtime_registry.notify', true) = 'on' then
    perform pg_notify('runtime_registry_changes', '');
  end if;
  return answer;
end
$$;


--
-- Name: FUNCTION write_change(current workspace.snapshot, decided workspace.decision, action text, restore boolean, request_id text, name text, secret text, secret_value keyring.sealed_value); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.write_change(current workspace.snapshot, decided workspace.decision, action text, restore boolean, request_id text, name text, secret text, secret_value keyring.sealed_value) IS 'Internal: stores what was decided about a workspace, records it and says what was done.
name: its new one; null: it keeps its name. secret: the secret besides MODEL that the change is about; secret_value: what to store as that; null:
nothing. With the setting runtime_registry.notify = on it wakes those who listen on runtime_registry_changes.';


--
-- Name: write_secret_change(workspace.snapshot, text, text, boolean, keyring.sealed_value); Type: FUNCTION; Schema: workspace; Owner: -
--

CREATE FUNCTION workspace.write_secret_change(current workspace.snapshot, secret text, action text, changed boolean, stored keyring.sealed_value DEFAULT NULL::keyring.sealed_value) RETURNS workspace.change
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  decided workspace.decision;
  billed_before text;
  -- What set_secret has not stored yet is not among them, and what delete_secret has deleted is not any more.
  credentials constant text[] := workspace.credentials(current.workspace_id);
  with_it constant text[] := array_remove(credentials, write_secret_change.secret) || write_secret_change.secret;
  is_set constant boolean := write_secret_change.action = 'set_secret';
begin
  -- The pair stays, readable or not, but credentials may have another provider serve it.
  decided := workspace.keep_pair(current, case when is_set then with_it else credentials end);
  decided.changed := write_secret_change.changed;
  billed_before := (
    registry.route(current.runtime, current.model, case when is_set then credentials else with_it end)
  ).billed_to;
  decided.billing_changed := decided.changed and coalesce(billed_before <> decided.billed_to, false);

  return workspace.write_change(
    current, decided, write_secret_change.action, secret => write_secret_change.secret, secret_value => stored
  );
end
$$;


--
-- Name: FUNCTION write_secret_change(current workspace.snapshot, secret text, action text, changed boolean, stored keyring.sealed_value); Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON FUNCTION workspace.write_secret_change(current workspace.snapshot, secret text, action text, changed boolean, stored keyring.sealed_value) IS 'Internal: stores a secret besides the model (null: there is nothing to store), records that, and says what it changed.';


--
-- Name: tokens; Type: TABLE; Schema: access; Owner: -
--

CREATE TABLE access.tokens (
    name text NOT NULL COLLATE pg_catalog."C",
    hash bytea NOT NULL,
    role text NOT NULL COLLATE pg_catalog."C",
    workspace_id uuid,
    created_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone,
    last_used_at timestamp with time zone,
    revoked_at timestamp with time zone,
    CONSTRAINT tokens_role_is_known CHECK ((role = ANY (ARRAY['admin'::text, 'operator'::text, 'workspace'::text])))
);


--
-- Name: TABLE tokens; Type: COMMENT; Schema: access; Owner: -
--

COMMENT ON TABLE access.tokens IS 'Bearer tokens. A name is never used again, because the history of workspaces names it.';


--
-- Name: COLUMN tokens.hash; Type: COMMENT; Schema: access; Owner: -
--

COMMENT ON COLUMN access.tokens.hash IS 'SHA-256 of the token. Without salt or iterations, which are for what people choose: a token is 32 random bytes, no two are the same and none can be guessed.';


--
-- Name: COLUMN tokens.workspace_id; Type: COMMENT; Schema: access; Owner: -
--

COMMENT ON COLUMN access.tokens.workspace_id IS 'The only workspace that a token of the role workspace is for; null for the other roles.';


--
-- Name: COLUMN tokens.last_used_at; Type: COMMENT; Schema: access; Owner: -
--

COMMENT ON COLUMN access.tokens.last_used_at IS 'When it was last used, to the minute.';


--
-- Name: retention; Type: TABLE; Schema: fleet; Owner: -
--

CREATE TABLE fleet.retention (
    singleton boolean DEFAULT true NOT NULL,
    prunings bigint NOT NULL,
    "position" bigint NOT NULL,
    workspace_id uuid NOT NULL,
    version bigint NOT NULL,
    CONSTRAINT retention_has_one_row CHECK (singleton)
);


--
-- Name: TABLE retention; Type: COMMENT; Schema: fleet; Owner: -
--

COMMENT ON TABLE fleet.retention IS 'One row, or none as long as nothing was pruned: how often fleet.prune_changes has taken changes away, and the last of them in the order of the feed. It is how fleet.changes_after knows that a reader has missed some.';


--
-- Name: key_ids; Type: SEQUENCE; Schema: keyring; Owner: -
--

CREATE SEQUENCE keyring.key_ids
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: SEQUENCE key_ids; Type: COMMENT; Schema: keyring; Owner: -
--

COMMENT ON SEQUENCE keyring.key_ids IS 'The ids of keys. None is given twice, not even when the keys are lost: something may still refer to them.';


--
-- Name: alembic_version; Type: TABLE; Schema: registry; Owner: -
--

CREATE TABLE registry.alembic_version (
    version_num character varying(32) NOT NULL
);


--
-- Name: TABLE alembic_version; Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON TABLE registry.alembic_version IS 'The migration this database stands at; alembic''s version table.';


--
-- Name: revisions; Type: TABLE; Schema: registry; Owner: -
--

CREATE TABLE registry.revisions (
    revision bigint NOT NULL,
    manifest jsonb NOT NULL,
    loaded_at timestamp with time zone NOT NULL,
    loaded_by text NOT NULL,
    restored_from bigint
);


--
-- Name: TABLE revisions; Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON TABLE registry.revisions IS 'Every manifest that was ever loaded.';


--
-- Name: COLUMN revisions.loaded_by; Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON COLUMN registry.revisions.loaded_by IS 'The setting runtime_registry.actor, else the session user.';


--
-- Name: COLUMN revisions.restored_from; Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON COLUMN registry.revisions.restored_from IS 'The older revision that fleet.restore_registry loaded again; null: it came as a manifest.';


--
-- Name: state; Type: TABLE; Schema: registry; Owner: -
--

CREATE TABLE registry.state (
    singleton boolean DEFAULT true NOT NULL,
    revision bigint NOT NULL,
    CONSTRAINT state_has_one_row CHECK (singleton)
);


--
-- Name: TABLE state; Type: COMMENT; Schema: registry; Owner: -
--

COMMENT ON TABLE registry.state IS 'One row: the current revision (0: none loaded yet). The table is also the gate between those who decide by the registry and those who replace it, see registry.hold.';


--
-- Name: numbering; Type: TABLE; Schema: workspace; Owner: -
--

CREATE TABLE workspace.numbering (
    singleton boolean DEFAULT true NOT NULL,
    era bigint NOT NULL,
    made_in oid,
    made_by xid,
    CONSTRAINT numbering_has_one_row CHECK (singleton)
);


--
-- Name: TABLE numbering; Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON TABLE workspace.numbering IS 'One row: what the positions of changes begin with, for as long as the database counts its transactions as it does. A dump takes the row along into another cluster, which counts differently; but there it stands in another table and was written by another transaction than it says. Then the next change begins a new era, and positions go on rising.';


--
-- Name: COLUMN numbering.era; Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON COLUMN workspace.numbering.era IS 'Positions are the era times 2^45, plus a transaction id.';


--
-- Name: COLUMN numbering.made_in; Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON COLUMN workspace.numbering.made_in IS 'The table, by its oid, that the row was made in.';


--
-- Name: COLUMN numbering.made_by; Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON COLUMN workspace.numbering.made_by IS 'The transaction that made it, or its savepoint: its xmin.';


--
-- Name: secrets; Type: TABLE; Schema: workspace; Owner: -
--

CREATE TABLE workspace.secrets (
    workspace_id uuid NOT NULL,
    key text NOT NULL COLLATE pg_catalog."C",
    sealed bytea NOT NULL,
    key_id integer,
    updated_at timestamp with time zone NOT NULL
)
WITH (fillfactor='85');


--
-- Name: TABLE secrets; Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON TABLE workspace.secrets IS 'The workspaces'' secrets; a workspace''s model is the one named MODEL.';


--
-- Name: COLUMN secrets.sealed; Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON COLUMN workspace.secrets.sealed IS 'Made by keyring.seal, read by keyring.unseal.';


--
-- Name: COLUMN secrets.key_id; Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON COLUMN workspace.secrets.key_id IS 'The key that sealed it; null: stored plain.';


--
-- Name: workspaces; Type: TABLE; Schema: workspace; Owner: -
--

CREATE TABLE workspace.workspaces (
    id uuid NOT NULL,
    name text NOT NULL,
    runtime text NOT NULL COLLATE pg_catalog."C",
    version bigint NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    "position" bigint DEFAULT 0 NOT NULL
)
WITH (fillfactor='85');


--
-- Name: TABLE workspaces; Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON TABLE workspace.workspaces IS 'One row a workspace. Its row lock guards its secrets too.';


--
-- Name: COLUMN workspaces.version; Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON COLUMN workspace.workspaces.version IS 'Counts the workspace''s changes; the version of its newest row in changes.';


--
-- Name: COLUMN workspaces."position"; Type: COMMENT; Schema: workspace; Owner: -
--

COMMENT ON COLUMN workspace.workspaces."position" IS 'The position of its newest row in changes.';


--
-- Data for Name: tokens; Type: TABLE DATA; Schema: access; Owner: -
--

COPY access.tokens (name, hash, role, workspace_id, created_at, expires_at, last_used_at, revoked_at) FROM stdin;
\.


--
-- Data for Name: retention; Type: TABLE DATA; Schema: fleet; Owner: -
--

COPY fleet.retention (singleton, prunings, "position", workspace_id, version) FROM stdin;
\.


--
-- Data for Name: keys; Type: TABLE DATA; Schema: keyring; Owner: -
--

COPY keyring.keys (id, wrapped, state, created_at, retired_at) FROM stdin;
\.


--
-- Data for Name: alembic_version; Type: TABLE DATA; Schema: registry; Owner: -
--

COPY registry.alembic_version (version_num) FROM stdin;
0007
\.


--
-- Data for Name: arms; Type: TABLE DATA; Schema: registry; Owner: -
--

COPY registry.arms (runtime, "position", provider) FROM stdin;
\.


--
-- Data for Name: claims; Type: TABLE DATA; Schema: registry; Owner: -
--

COPY registry.claims (runtime, case_folded, pattern, is_prefix, provider, billed_to) FROM stdin;
\.


--
-- Data for Name: equivalents; Type: TABLE DATA; Schema: registry; Owner: -
--

COPY registry.equivalents (model, group_number) FROM stdin;
\.


--
-- Data for Name: models; Type: TABLE DATA; Schema: registry; Owner: -
--

COPY registry.models (runtime, model, arm_position, provider, menu_position, deprecated_at, sunset_at, successor, billed_to, is_contested, has_equivalents) FROM stdin;
\.


--
-- Data for Name: providers; Type: TABLE DATA; Schema: registry; Owner: -
--

COPY registry.providers (name, "position", billed_to, auth_env, case_sensitive) FROM stdin;
\.


--
-- Data for Name: revisions; Type: TABLE DATA; Schema: registry; Owner: -
--

COPY registry.revisions (revision, manifest, loaded_at, loaded_by, restored_from) FROM stdin;
\.


--
-- Data for Name: runtimes; Type: TABLE DATA; Schema: registry; Owner: -
--

COPY registry.runtimes (name, "position", model_policy, default_model, menu_size, folds_case) FROM stdin;
\.


--
-- Data for Name: state; Type: TABLE DATA; Schema: registry; Owner: -
--

COPY registry.state (singleton, revision) FROM stdin;
t	0
\.


--
-- Data for Name: changes; Type: TABLE DATA; Schema: workspace; Owner: -
--

COPY workspace.changes (workspace_id, version, action, changed, previous_runtime, runtime, previous_sealed, previous_key_id, sealed, key_id, model_source, provider, billed_to, billing_changed, restore, actor, request_id, changed_at, txid, secret, model_deprecated, model_sunset_at, "position", name) FROM stdin;
\.


--
-- Data for Name: secrets; Type: TABLE DATA; Schema: workspace; Owner: -
--

COPY workspace.secrets (workspace_id, key, sealed, key_id, updated_at) FROM stdin;
\.


--
-- Data for Name: workspaces; Type: TABLE DATA; Schema: workspace; Owner: -
--

COPY workspace.workspaces (id, name, runtime, version, created_at, updated_at, "position") FROM stdin;
\.


--
-- Name: key_ids; Type: SEQUENCE SET; Schema: keyring; Owner: -
--

SELECT pg_catalog.setval('keyring.key_ids', 1, false);


--
-- Name: tokens tokens_hash_key; Type: CONSTRAINT; Schema: access; Owner: -
--

ALTER TABLE ONLY access.tokens
    ADD CONSTRAINT tokens_hash_key UNIQUE (hash);


--
-- Name: tokens tokens_pkey; Type: CONSTRAINT; Schema: access; Owner: -
--

ALTER TABLE ONLY access.tokens
    ADD CONSTRAINT tokens_pkey PRIMARY KEY (name);


--
-- Name: retention retention_pkey; Type: CONSTRAINT; Schema: fleet; Owner: -
--

ALTER TABLE ONLY fleet.retention
    ADD CONSTRAINT retention_pkey PRIMARY KEY (singleton);


--
-- Name: keys keys_pkey; Type: CONSTRAINT; Schema: keyring; Owner: -
--

ALTER TABLE ONLY keyring.keys
    ADD CONSTRAINT keys_pkey PRIMARY KEY (id);


--
-- Name: alembic_version alembic_version_pkc; Type: CONSTRAINT; Schema: registry; Owner: -
--

ALTER TABLE ONLY registry.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);


--
-- Name: arms arms_pkey; Type: CONSTRAINT; Schema: registry; Owner: -
--

ALTER TABLE ONLY registry.arms
    ADD CONSTRAINT arms_pkey PRIMARY KEY (runtime, "position");


--
-- Name: arms arms_runtime_provider_key; Type: CONSTRAINT; Schema: registry; Owner: -
--

ALTER TABLE ONLY registry.arms
    ADD CONSTRAINT arms_runtime_provider_key UNIQUE (runtime, provider);


--
-- Name: claims claims_pkey; Type: CONSTRAINT; Schema: registry; Owner: -
--

ALTER TABLE ONLY registry.claims
    ADD CONSTRAINT claims_pkey PRIMARY KEY (runtime, case_folded, pattern);


--
-- Name: equivalents equivalents_pkey; Type: CONSTRAINT; Schema: registry; Owner: -
--

ALTER TABLE ONLY registry.equivalents
    ADD CONSTRAINT equivalents_pkey PRIMARY KEY (model);


--
-- Name: models models_pkey; Type: CONSTRAINT; Schema: registry; Owner: -
--

ALTER TABLE ONLY registry.models
    ADD CONSTRAINT models_pkey PRIMARY KEY (runtime, model, arm_position);


--
-- Name: models models_runtime_menu_position_key; Type: CONSTRAINT; Schema: registry; Owner: -
--

ALTER TABLE ONLY registry.models
    ADD CONSTRAINT models_runtime_menu_position_key UNIQUE (runtime, menu_position);


--
-- Name: providers providers_pkey; Type: CONSTRAINT; Schema: registry; Owner: -
--

ALTER TABLE ONLY registry.providers
    ADD CONSTRAINT providers_pkey PRIMARY KEY (name);


--
-- Name: revisions revisions_pkey; Type: CONSTRAINT; Schema: registry; Owner: -
--

ALTER TABLE ONLY registry.revisions
    ADD CONSTRAINT revisions_pkey PRIMARY KEY (revision);


--
-- Name: runtimes runtimes_pkey; Type: CONSTRAINT; Schema: registry; Owner: -
--

ALTER TABLE ONLY registry.runtimes
    ADD CONSTRAINT runtimes_pkey PRIMARY KEY (name);


--
-- Name: state state_pkey; Type: CONSTRAINT; Schema: registry; Owner: -
--

ALTER TABLE ONLY registry.state
    ADD CONSTRAINT state_pkey PRIMARY KEY (singleton);


--
-- Name: changes changes_pkey; Type: CONSTRAINT; Schema: workspace; Owner: -
--

ALTER TABLE ONLY workspace.changes
    ADD CONSTRAINT changes_pkey PRIMARY KEY (workspace_id, version);


--
-- Name: numbering numbering_pkey; Type: CONSTRAINT; Schema: workspace; Owner: -
--

ALTER TABLE ONLY workspace.numbering
    ADD CONSTRAINT numbering_pkey PRIMARY KEY (singleton);


--
-- Name: secrets secrets_pkey; Type: CONSTRAINT; Schema: workspace; Owner: -
--

ALTER TABLE ONLY workspace.secrets
    ADD CONSTRAINT secrets_pkey PRIMARY KEY (workspace_id, key);


--
-- Name: workspaces workspaces_pkey; Type: CONSTRAINT; Schema: workspace; Owner: -
--

ALTER TABLE ONLY workspace.workspaces
    ADD CONSTRAINT workspaces_pkey PRIMARY KEY (id);


--
-- Name: keys_active_key; Type: INDEX; Schema: keyring; Owner: -
--

CREATE UNIQUE INDEX keys_active_key ON keyring.keys USING btree (state) WHERE (state = 'active'::text);


--
-- Name: equivalents_group_number_idx; Type: INDEX; Schema: registry; Owner: -
--

CREATE INDEX equivalents_group_number_idx ON registry.equivalents USING btree (group_number);


--
-- Name: changes_position_idx; Type: INDEX; Schema: workspace; Owner: -
--

CREATE INDEX changes_position_idx ON workspace.changes USING btree ("position", workspace_id, version);


--
-- Name: changes_workspace_id_request_id_key; Type: INDEX; Schema: workspace; Owner: -
--

CREATE UNIQUE INDEX changes_workspace_id_request_id_key ON workspace.changes USING btree (workspace_id, request_id) WHERE (request_id IS NOT NULL);


--
-- Name: secrets secrets_workspace_id_fkey; Type: FK CONSTRAINT; Schema: workspace; Owner: -
--

ALTER TABLE ONLY workspace.secrets
    ADD CONSTRAINT secrets_workspace_id_fkey FOREIGN KEY (workspace_id) REFERENCES workspace.workspaces(id);


--
-- Name: workspaces workspaces_runtime_fkey; Type: FK CONSTRAINT; Schema: workspace; Owner: -
--

ALTER TABLE ONLY workspace.workspaces
    ADD CONSTRAINT workspaces_runtime_fkey FOREIGN KEY (runtime) REFERENCES registry.runtimes(name);


--
-- Name: SCHEMA access; Type: ACL; Schema: -; Owner: -
--

GRANT USAGE ON SCHEMA access TO runtime_registry_operator;
GRANT USAGE ON SCHEMA access TO runtime_registry_admin;


--
-- Name: SCHEMA fleet; Type: ACL; Schema: -; Owner: -
--

GRANT USAGE ON SCHEMA fleet TO runtime_registry_reader;
GRANT USAGE ON SCHEMA fleet TO runtime_registry_operator;
GRANT USAGE ON SCHEMA fleet TO runtime_registry_admin;


--
-- Name: SCHEMA keyring; Type: ACL; Schema: -; Owner: -
--

GRANT USAGE ON SCHEMA keyring TO runtime_registry_reader;
GRANT USAGE ON SCHEMA keyring TO runtime_registry_operator;
GRANT USAGE ON SCHEMA keyring TO runtime_registry_admin;


--
-- Name: SCHEMA registry; Type: ACL; Schema: -; Owner: -
--

GRANT USAGE ON SCHEMA registry TO runtime_registry_reader;
GRANT USAGE ON SCHEMA registry TO runtime_registry_operator;
GRANT USAGE ON SCHEMA registry TO runtime_registry_admin;


--
-- Name: SCHEMA workspace; Type: ACL; Schema: -; Owner: -
--

GRANT USAGE ON SCHEMA workspace TO runtime_registry_reader;
GRANT USAGE ON SCHEMA workspace TO runtime_registry_operator;
GRANT USAGE ON SCHEMA workspace TO runtime_registry_admin;


--
-- Name: TYPE pair; Type: ACL; Schema: fleet; Owner: -
--

REVOKE ALL ON TYPE fleet.pair FROM PUBLIC;


--
-- Name: TYPE place; Type: ACL; Schema: fleet; Owner: -
--

REVOKE ALL ON TYPE fleet.place FROM PUBLIC;


--
-- Name: TYPE stored_model; Type: ACL; Schema: fleet; Owner: -
--

REVOKE ALL ON TYPE fleet.stored_model FROM PUBLIC;


--
-- Name: TYPE data_key; Type: ACL; Schema: keyring; Owner: -
--

REVOKE ALL ON TYPE keyring.data_key FROM PUBLIC;


--
-- Name: TYPE sealed_value; Type: ACL; Schema: keyring; Owner: -
--

REVOKE ALL ON TYPE keyring.sealed_value FROM PUBLIC;


--
-- Name: TYPE unlocked; Type: ACL; Schema: keyring; Owner: -
--

REVOKE ALL ON TYPE keyring.unlocked FROM PUBLIC;


--
-- Name: TYPE content; Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON TYPE registry.content FROM PUBLIC;


--
-- Name: TYPE routing; Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON TYPE registry.routing FROM PUBLIC;


--
-- Name: TYPE finding; Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON TYPE registry.finding FROM PUBLIC;


--
-- Name: TYPE manifest_problem; Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON TYPE registry.manifest_problem FROM PUBLIC;


--
-- Name: TYPE decision; Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON TYPE workspace.decision FROM PUBLIC;


--
-- Name: TYPE key_use; Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON TYPE workspace.key_use FROM PUBLIC;


--
-- Name: TYPE snapshot; Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON TYPE workspace.snapshot FROM PUBLIC;


--
-- Name: FUNCTION authenticate(hash bytea); Type: ACL; Schema: access; Owner: -
--

REVOKE ALL ON FUNCTION access.authenticate(hash bytea) FROM PUBLIC;
GRANT ALL ON FUNCTION access.authenticate(hash bytea) TO runtime_registry_operator;
GRANT ALL ON FUNCTION access.authenticate(hash bytea) TO runtime_registry_admin;


--
-- Name: FUNCTION create_token(name text, role text, hash bytea, workspace_id uuid, expires_at timestamp with time zone); Type: ACL; Schema: access; Owner: -
--

REVOKE ALL ON FUNCTION access.create_token(name text, role text, hash bytea, workspace_id uuid, expires_at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION access.create_token(name text, role text, hash bytea, workspace_id uuid, expires_at timestamp with time zone) TO runtime_registry_admin;


--
-- Name: FUNCTION list_tokens(); Type: ACL; Schema: access; Owner: -
--

REVOKE ALL ON FUNCTION access.list_tokens() FROM PUBLIC;
GRANT ALL ON FUNCTION access.list_tokens() TO runtime_registry_admin;


--
-- Name: FUNCTION revoke_token(name text); Type: ACL; Schema: access; Owner: -
--

REVOKE ALL ON FUNCTION access.revoke_token(name text) FROM PUBLIC;
GRANT ALL ON FUNCTION access.revoke_token(name text) TO runtime_registry_admin;


--
-- Name: FUNCTION begin_batch(batch integer, dry_run boolean); Type: ACL; Schema: fleet; Owner: -
--

REVOKE ALL ON FUNCTION fleet.begin_batch(batch integer, dry_run boolean) FROM PUBLIC;


--
-- Name: FUNCTION change_batch(ids uuid[], from_runtime text, runtime text, restore boolean, request_id text, dry_run boolean); Type: ACL; Schema: fleet; Owner: -
--

REVOKE ALL ON FUNCTION fleet.change_batch(ids uuid[], from_runtime text, runtime text, restore boolean, request_id text, dry_run boolean) FROM PUBLIC;


--
-- Name: FUNCTION changes_after(cursor text, batch integer); Type: ACL; Schema: fleet; Owner: -
--

REVOKE ALL ON FUNCTION fleet.changes_after(cursor text, batch integer) FROM PUBLIC;
GRANT ALL ON FUNCTION fleet.changes_after(cursor text, batch integer) TO runtime_registry_admin;


--
-- Name: FUNCTION check_batch(batch integer); Type: ACL; Schema: fleet; Owner: -
--

REVOKE ALL ON FUNCTION fleet.check_batch(batch integer) FROM PUBLIC;


--
-- Name: FUNCTION compare_registry(manifest jsonb); Type: ACL; Schema: fleet; Owner: -
--

REVOKE ALL ON FUNCTION fleet.compare_registry(manifest jsonb) FROM PUBLIC;


--
-- Name: FUNCTION current_cursor(); Type: ACL; Schema: fleet; Owner: -
--

REVOKE ALL ON FUNCTION fleet.current_cursor() FROM PUBLIC;
GRANT ALL ON FUNCTION fleet.current_cursor() TO runtime_registry_admin;


--
-- Name: FUNCTION deprecations(); Type: ACL; Schema: fleet; Owner: -
--

REVOKE ALL ON FUNCTION fleet.deprecations() FROM PUBLIC;
GRANT ALL ON FUNCTION fleet.deprecations() TO runtime_registry_admin;


--
-- Name: FUNCTION describe_orphans(pairs fleet.pair[]); Type: ACL; Schema: fleet; Owner: -
--

REVOKE ALL ON FUNCTION fleet.describe_orphans(pairs fleet.pair[]) FROM PUBLIC;


--
-- Name: FUNCTION feed_end(); Type: ACL; Schema: fleet; Owner: -
--

REVOKE ALL ON FUNCTION fleet.feed_end() FROM PUBLIC;


--
-- Name: FUNCTION find_orphans(of_runtime text, after uuid, batch integer); Type: ACL; Schema: fleet; Owner: -
--

REVOKE ALL ON FUNCTION fleet.find_orphans(of_runtime text, after uuid, batch integer) FROM PUBLIC;


--
-- Name: FUNCTION list_workspaces(after uuid, max_entries integer); Type: ACL; Schema: fleet; Owner: -
--

REVOKE ALL ON FUNCTION fleet.list_workspaces(after uuid, max_entries integer) FROM PUBLIC;
GRANT ALL ON FUNCTION fleet.list_workspaces(after uuid, max_entries integer) TO runtime_registry_reader;
GRANT ALL ON FUNCTION fleet.list_workspaces(after uuid, max_entries integer) TO runtime_registry_operator;
GRANT ALL ON FUNCTION fleet.list_workspaces(after uuid, max_entries integer) TO runtime_registry_admin;


--
-- Name: FUNCTION load_registry(manifest jsonb, on_orphan text, dry_run boolean); Type: ACL; Schema: fleet; Owner: -
--

REVOKE ALL ON FUNCTION fleet.load_registry(manifest jsonb, on_orphan text, dry_run boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION fleet.load_registry(manifest jsonb, on_orphan text, dry_run boolean) TO runtime_registry_admin;


--
-- Name: FUNCTION move(from_runtime text, to_runtime text, restore boolean, request_id text, after uuid, batch integer, among uuid[], dry_run boolean); Type: ACL; Schema: fleet; Owner: -
--

REVOKE ALL ON FUNCTION fleet.move(from_runtime text, to_runtime text, restore boolean, request_id text, after uuid, batch integer, among uuid[], dry_run boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION fleet.move(from_runtime text, to_runtime text, restore boolean, request_id text, after uuid, batch integer, among uuid[], dry_run boolean) TO runtime_registry_admin;


--
-- Name: FUNCTION orphans(runtime text); Type: ACL; Schema: fleet; Owner: -
--

REVOKE ALL ON FUNCTION fleet.orphans(runtime text) FROM PUBLIC;
GRANT ALL ON FUNCTION fleet.orphans(runtime text) TO runtime_registry_reader;
GRANT ALL ON FUNCTION fleet.orphans(runtime text) TO runtime_registry_operator;
GRANT ALL ON FUNCTION fleet.orphans(runtime text) TO runtime_registry_admin;


--
-- Name: FUNCTION overview(); Type: ACL; Schema: fleet; Owner: -
--

REVOKE ALL ON FUNCTION fleet.overview() FROM PUBLIC;
GRANT ALL ON FUNCTION fleet.overview() TO runtime_registry_reader;
GRANT ALL ON FUNCTION fleet.overview() TO runtime_registry_operator;
GRANT ALL ON FUNCTION fleet.overview() TO runtime_registry_admin;


--
-- Name: FUNCTION page_of(among uuid[], after uuid, batch integer); Type: ACL; Schema: fleet; Owner: -
--

REVOKE ALL ON FUNCTION fleet.page_of(among uuid[], after uuid, batch integer) FROM PUBLIC;


--
-- Name: FUNCTION parse_cursor(cursor text); Type: ACL; Schema: fleet; Owner: -
--

REVOKE ALL ON FUNCTION fleet.parse_cursor(cursor text) FROM PUBLIC;


--
-- Name: FUNCTION prune_changes(before timestamp with time zone, batch integer, cursor text); Type: ACL; Schema: fleet; Owner: -
--

REVOKE ALL ON FUNCTION fleet.prune_changes(before timestamp with time zone, batch integer, cursor text) FROM PUBLIC;
GRANT ALL ON FUNCTION fleet.prune_changes(before timestamp with time zone, batch integer, cursor text) TO runtime_registry_admin;


--
-- Name: FUNCTION recent_changes(max_entries integer); Type: ACL; Schema: fleet; Owner: -
--

REVOKE ALL ON FUNCTION fleet.recent_changes(max_entries integer) FROM PUBLIC;
GRANT ALL ON FUNCTION fleet.recent_changes(max_entries integer) TO runtime_registry_reader;
GRANT ALL ON FUNCTION fleet.recent_changes(max_entries integer) TO runtime_registry_operator;
GRANT ALL ON FUNCTION fleet.recent_changes(max_entries integer) TO runtime_registry_admin;


--
-- Name: FUNCTION replace_registry(manifest jsonb, on_orphan text, dry_run boolean, restored_from bigint); Type: ACL; Schema: fleet; Owner: -
--

REVOKE ALL ON FUNCTION fleet.replace_registry(manifest jsonb, on_orphan text, dry_run boolean, restored_from bigint) FROM PUBLIC;


--
-- Name: FUNCTION require_revision(revision bigint); Type: ACL; Schema: fleet; Owner: -
--

REVOKE ALL ON FUNCTION fleet.require_revision(revision bigint) FROM PUBLIC;


--
-- Name: FUNCTION reset_of(runtime text, model text); Type: ACL; Schema: fleet; Owner: -
--

REVOKE ALL ON FUNCTION fleet.reset_of(runtime text, model text) FROM PUBLIC;


--
-- Name: FUNCTION reset_orphans(runtime text, request_id text, after uuid, batch integer, among uuid[], dry_run boolean); Type: ACL; Schema: fleet; Owner: -
--

REVOKE ALL ON FUNCTION fleet.reset_orphans(runtime text, request_id text, after uuid, batch integer, among uuid[], dry_run boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION fleet.reset_orphans(runtime text, request_id text, after uuid, batch integer, among uuid[], dry_run boolean) TO runtime_registry_admin;


--
-- Name: FUNCTION restore_registry(revision bigint, on_orphan text, dry_run boolean); Type: ACL; Schema: fleet; Owner: -
--

REVOKE ALL ON FUNCTION fleet.restore_registry(revision bigint, on_orphan text, dry_run boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION fleet.restore_registry(revision bigint, on_orphan text, dry_run boolean) TO runtime_registry_admin;


--
-- Name: FUNCTION revision_manifest(revision bigint); Type: ACL; Schema: fleet; Owner: -
--

REVOKE ALL ON FUNCTION fleet.revision_manifest(revision bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION fleet.revision_manifest(revision bigint) TO runtime_registry_admin;


--
-- Name: FUNCTION revisions(); Type: ACL; Schema: fleet; Owner: -
--

REVOKE ALL ON FUNCTION fleet.revisions() FROM PUBLIC;
GRANT ALL ON FUNCTION fleet.revisions() TO runtime_registry_admin;


--
-- Name: FUNCTION stored_models(of_runtimes text[]); Type: ACL; Schema: fleet; Owner: -
--

REVOKE ALL ON FUNCTION fleet.stored_models(of_runtimes text[]) FROM PUBLIC;


--
-- Name: FUNCTION active_key(); Type: ACL; Schema: keyring; Owner: -
--

REVOKE ALL ON FUNCTION keyring.active_key() FROM PUBLIC;


--
-- Name: FUNCTION add_key(kek text); Type: ACL; Schema: keyring; Owner: -
--

REVOKE ALL ON FUNCTION keyring.add_key(kek text) FROM PUBLIC;


--
-- Name: FUNCTION any_key(key_id integer); Type: ACL; Schema: keyring; Owner: -
--

REVOKE ALL ON FUNCTION keyring.any_key(key_id integer) FROM PUBLIC;


--
-- Name: FUNCTION encrypt(value text, key text); Type: ACL; Schema: keyring; Owner: -
--

REVOKE ALL ON FUNCTION keyring.encrypt(value text, key text) FROM PUBLIC;


--
-- Name: FUNCTION hold(); Type: ACL; Schema: keyring; Owner: -
--

REVOKE ALL ON FUNCTION keyring.hold() FROM PUBLIC;


--
-- Name: FUNCTION init(); Type: ACL; Schema: keyring; Owner: -
--

REVOKE ALL ON FUNCTION keyring.init() FROM PUBLIC;
GRANT ALL ON FUNCTION keyring.init() TO runtime_registry_admin;


--
-- Name: FUNCTION is_whole(message bytea); Type: ACL; Schema: keyring; Owner: -
--

REVOKE ALL ON FUNCTION keyring.is_whole(message bytea) FROM PUBLIC;


--
-- Name: FUNCTION key_missing(problem text); Type: ACL; Schema: keyring; Owner: -
--

REVOKE ALL ON FUNCTION keyring.key_missing(problem text) FROM PUBLIC;


--
-- Name: FUNCTION lock(); Type: ACL; Schema: keyring; Owner: -
--

REVOKE ALL ON FUNCTION keyring.lock() FROM PUBLIC;


--
-- Name: FUNCTION open(message bytea, key text, label text); Type: ACL; Schema: keyring; Owner: -
--

REVOKE ALL ON FUNCTION keyring.open(message bytea, key text, label text) FROM PUBLIC;


--
-- Name: FUNCTION open_key(stored keyring.keys, is_needed boolean); Type: ACL; Schema: keyring; Owner: -
--

REVOKE ALL ON FUNCTION keyring.open_key(stored keyring.keys, is_needed boolean) FROM PUBLIC;


--
-- Name: FUNCTION opens(); Type: ACL; Schema: keyring; Owner: -
--

REVOKE ALL ON FUNCTION keyring.opens() FROM PUBLIC;
GRANT ALL ON FUNCTION keyring.opens() TO runtime_registry_reader;
GRANT ALL ON FUNCTION keyring.opens() TO runtime_registry_operator;
GRANT ALL ON FUNCTION keyring.opens() TO runtime_registry_admin;


--
-- Name: FUNCTION random_key(); Type: ACL; Schema: keyring; Owner: -
--

REVOKE ALL ON FUNCTION keyring.random_key() FROM PUBLIC;


--
-- Name: FUNCTION reseal(after uuid, batch integer); Type: ACL; Schema: keyring; Owner: -
--

REVOKE ALL ON FUNCTION keyring.reseal(after uuid, batch integer) FROM PUBLIC;
GRANT ALL ON FUNCTION keyring.reseal(after uuid, batch integer) TO runtime_registry_admin;


--
-- Name: FUNCTION reseal_value(with_key keyring.data_key, ws uuid, name text, sealed bytea, key_id integer); Type: ACL; Schema: keyring; Owner: -
--

REVOKE ALL ON FUNCTION keyring.reseal_value(with_key keyring.data_key, ws uuid, name text, sealed bytea, key_id integer) FROM PUBLIC;


--
-- Name: FUNCTION retire(key_id integer); Type: ACL; Schema: keyring; Owner: -
--

REVOKE ALL ON FUNCTION keyring.retire(key_id integer) FROM PUBLIC;
GRANT ALL ON FUNCTION keyring.retire(key_id integer) TO runtime_registry_admin;


--
-- Name: FUNCTION rewrap(); Type: ACL; Schema: keyring; Owner: -
--

REVOKE ALL ON FUNCTION keyring.rewrap() FROM PUBLIC;
GRANT ALL ON FUNCTION keyring.rewrap() TO runtime_registry_admin;


--
-- Name: FUNCTION rotate(); Type: ACL; Schema: keyring; Owner: -
--

REVOKE ALL ON FUNCTION keyring.rotate() FROM PUBLIC;
GRANT ALL ON FUNCTION keyring.rotate() TO runtime_registry_admin;


--
-- Name: FUNCTION seal(with_key keyring.data_key, ws uuid, name text, value text); Type: ACL; Schema: keyring; Owner: -
--

REVOKE ALL ON FUNCTION keyring.seal(with_key keyring.data_key, ws uuid, name text, value text) FROM PUBLIC;


--
-- Name: FUNCTION seal_all(with_key keyring.data_key, ws uuid[], name text, vals text[]); Type: ACL; Schema: keyring; Owner: -
--

REVOKE ALL ON FUNCTION keyring.seal_all(with_key keyring.data_key, ws uuid[], name text, vals text[]) FROM PUBLIC;


--
-- Name: FUNCTION session_kek(setting text); Type: ACL; Schema: keyring; Owner: -
--

REVOKE ALL ON FUNCTION keyring.session_kek(setting text) FROM PUBLIC;


--
-- Name: FUNCTION status(verify boolean); Type: ACL; Schema: keyring; Owner: -
--

REVOKE ALL ON FUNCTION keyring.status(verify boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION keyring.status(verify boolean) TO runtime_registry_admin;


--
-- Name: FUNCTION strong_kek(setting text); Type: ACL; Schema: keyring; Owner: -
--

REVOKE ALL ON FUNCTION keyring.strong_kek(setting text) FROM PUBLIC;


--
-- Name: FUNCTION unlock(active keyring.keys, key_is_needed boolean, ws uuid, name text, sealed bytea, key_id integer); Type: ACL; Schema: keyring; Owner: -
--

REVOKE ALL ON FUNCTION keyring.unlock(active keyring.keys, key_is_needed boolean, ws uuid, name text, sealed bytea, key_id integer) FROM PUBLIC;


--
-- Name: FUNCTION unseal(with_key keyring.data_key, ws uuid, name text, sealed bytea, key_id integer); Type: ACL; Schema: keyring; Owner: -
--

REVOKE ALL ON FUNCTION keyring.unseal(with_key keyring.data_key, ws uuid, name text, sealed bytea, key_id integer) FROM PUBLIC;


--
-- Name: FUNCTION unseal_all(with_key keyring.data_key, ws uuid[], name text, sealed bytea[], key_ids integer[]); Type: ACL; Schema: keyring; Owner: -
--

REVOKE ALL ON FUNCTION keyring.unseal_all(with_key keyring.data_key, ws uuid[], name text, sealed bytea[], key_ids integer[]) FROM PUBLIC;


--
-- Name: FUNCTION unwrap(key_id integer, wrapped bytea, kek text); Type: ACL; Schema: keyring; Owner: -
--

REVOKE ALL ON FUNCTION keyring.unwrap(key_id integer, wrapped bytea, kek text) FROM PUBLIC;


--
-- Name: FUNCTION wrap(key keyring.data_key, kek text); Type: ACL; Schema: keyring; Owner: -
--

REVOKE ALL ON FUNCTION keyring.wrap(key keyring.data_key, kek text) FROM PUBLIC;


--
-- Name: FUNCTION clean_text(value text, argument text); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.clean_text(value text, argument text) FROM PUBLIC;


--
-- Name: FUNCTION default_model(runtime text); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.default_model(runtime text) FROM PUBLIC;
GRANT ALL ON FUNCTION registry.default_model(runtime text) TO runtime_registry_reader;
GRANT ALL ON FUNCTION registry.default_model(runtime text) TO runtime_registry_operator;
GRANT ALL ON FUNCTION registry.default_model(runtime text) TO runtime_registry_admin;


--
-- Name: FUNCTION hold(); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.hold() FROM PUBLIC;


--
-- Name: FUNCTION id_problem(value jsonb); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.id_problem(value jsonb) FROM PUBLIC;


--
-- Name: FUNCTION invalid_argument(argument text, problem text); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.invalid_argument(argument text, problem text) FROM PUBLIC;


--
-- Name: FUNCTION list_models(runtime text); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.list_models(runtime text) FROM PUBLIC;
GRANT ALL ON FUNCTION registry.list_models(runtime text) TO runtime_registry_reader;
GRANT ALL ON FUNCTION registry.list_models(runtime text) TO runtime_registry_operator;
GRANT ALL ON FUNCTION registry.list_models(runtime text) TO runtime_registry_admin;


--
-- Name: FUNCTION list_runtimes(); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.list_runtimes() FROM PUBLIC;
GRANT ALL ON FUNCTION registry.list_runtimes() TO runtime_registry_reader;
GRANT ALL ON FUNCTION registry.list_runtimes() TO runtime_registry_operator;
GRANT ALL ON FUNCTION registry.list_runtimes() TO runtime_registry_admin;


--
-- Name: FUNCTION look_up(runtime text, model text, previous_runtime text); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.look_up(runtime text, model text, previous_runtime text) FROM PUBLIC;


--
-- Name: FUNCTION manifest_arms(manifest jsonb); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.manifest_arms(manifest jsonb) FROM PUBLIC;


--
-- Name: FUNCTION manifest_array(value jsonb); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.manifest_array(value jsonb) FROM PUBLIC;


--
-- Name: FUNCTION manifest_claims(manifest jsonb); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.manifest_claims(manifest jsonb) FROM PUBLIC;


--
-- Name: FUNCTION manifest_content(manifest jsonb); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.manifest_content(manifest jsonb) FROM PUBLIC;


--
-- Name: FUNCTION manifest_deprecated(manifest jsonb); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.manifest_deprecated(manifest jsonb) FROM PUBLIC;


--
-- Name: FUNCTION manifest_deprecations(manifest jsonb); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.manifest_deprecations(manifest jsonb) FROM PUBLIC;


--
-- Name: FUNCTION manifest_difference(before jsonb, after jsonb, OUT added jsonb, OUT removed jsonb, OUT changed jsonb); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.manifest_difference(before jsonb, after jsonb, OUT added jsonb, OUT removed jsonb, OUT changed jsonb) FROM PUBLIC;


--
-- Name: FUNCTION manifest_equivalents(manifest jsonb); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.manifest_equivalents(manifest jsonb) FROM PUBLIC;


--
-- Name: FUNCTION manifest_facts(manifest jsonb); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.manifest_facts(manifest jsonb) FROM PUBLIC;


--
-- Name: FUNCTION manifest_models(manifest jsonb); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.manifest_models(manifest jsonb) FROM PUBLIC;


--
-- Name: FUNCTION manifest_overlaps(manifest jsonb); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.manifest_overlaps(manifest jsonb) FROM PUBLIC;


--
-- Name: FUNCTION manifest_problems(manifest jsonb); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.manifest_problems(manifest jsonb) FROM PUBLIC;


--
-- Name: FUNCTION manifest_providers(manifest jsonb); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.manifest_providers(manifest jsonb) FROM PUBLIC;


--
-- Name: FUNCTION manifest_runtimes(manifest jsonb); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.manifest_runtimes(manifest jsonb) FROM PUBLIC;


--
-- Name: FUNCTION manifest_side(side text, says jsonb, other jsonb); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.manifest_side(side text, says jsonb, other jsonb) FROM PUBLIC;


--
-- Name: FUNCTION manifest_strings(value jsonb); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.manifest_strings(value jsonb) FROM PUBLIC;


--
-- Name: FUNCTION manifest_time(value text); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.manifest_time(value text) FROM PUBLIC;


--
-- Name: FUNCTION manifest_uncovered(manifest jsonb); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.manifest_uncovered(manifest jsonb) FROM PUBLIC;


--
-- Name: FUNCTION menu(runtime text); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.menu(runtime text) FROM PUBLIC;
GRANT ALL ON FUNCTION registry.menu(runtime text) TO runtime_registry_reader;
GRANT ALL ON FUNCTION registry.menu(runtime text) TO runtime_registry_operator;
GRANT ALL ON FUNCTION registry.menu(runtime text) TO runtime_registry_admin;


--
-- Name: FUNCTION refuse_model(runtime text); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.refuse_model(runtime text) FROM PUBLIC;


--
-- Name: FUNCTION replace_registry(content registry.content); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.replace_registry(content registry.content) FROM PUBLIC;


--
-- Name: FUNCTION require_read_committed(); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.require_read_committed() FROM PUBLIC;


--
-- Name: FUNCTION require_runtime(runtime text); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.require_runtime(runtime text) FROM PUBLIC;


--
-- Name: FUNCTION resolve(runtime text, model text, auth_env text[]); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.resolve(runtime text, model text, auth_env text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION registry.resolve(runtime text, model text, auth_env text[]) TO runtime_registry_reader;
GRANT ALL ON FUNCTION registry.resolve(runtime text, model text, auth_env text[]) TO runtime_registry_operator;
GRANT ALL ON FUNCTION registry.resolve(runtime text, model text, auth_env text[]) TO runtime_registry_admin;


--
-- Name: FUNCTION route(runtime text, model text, auth_env text[]); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.route(runtime text, model text, auth_env text[]) FROM PUBLIC;


--
-- Name: FUNCTION shape_problems(path text, value jsonb, required jsonb, optional jsonb); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.shape_problems(path text, value jsonb, required jsonb, optional jsonb) FROM PUBLIC;


--
-- Name: FUNCTION status(); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.status() FROM PUBLIC;
GRANT ALL ON FUNCTION registry.status() TO runtime_registry_reader;
GRANT ALL ON FUNCTION registry.status() TO runtime_registry_operator;
GRANT ALL ON FUNCTION registry.status() TO runtime_registry_admin;


--
-- Name: FUNCTION text_problem(value text); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.text_problem(value text) FROM PUBLIC;


--
-- Name: FUNCTION trim_text(value text); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.trim_text(value text) FROM PUBLIC;


--
-- Name: FUNCTION valid_models(runtime text); Type: ACL; Schema: registry; Owner: -
--

REVOKE ALL ON FUNCTION registry.valid_models(runtime text) FROM PUBLIC;


--
-- Name: FUNCTION actor(); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.actor() FROM PUBLIC;


--
-- Name: FUNCTION begin_era(); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.begin_era() FROM PUBLIC;


--
-- Name: FUNCTION change_of(recorded workspace.changes, previous_model text, model text); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.change_of(recorded workspace.changes, previous_model text, model text) FROM PUBLIC;


--
-- Name: FUNCTION change_runtime(ws uuid, runtime text, model text, restore boolean, expected_version bigint, request_id text); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.change_runtime(ws uuid, runtime text, model text, restore boolean, expected_version bigint, request_id text) FROM PUBLIC;
GRANT ALL ON FUNCTION workspace.change_runtime(ws uuid, runtime text, model text, restore boolean, expected_version bigint, request_id text) TO runtime_registry_operator;
GRANT ALL ON FUNCTION workspace.change_runtime(ws uuid, runtime text, model text, restore boolean, expected_version bigint, request_id text) TO runtime_registry_admin;


--
-- Name: FUNCTION choose_model(current workspace.snapshot, runtime text, model text, restore boolean); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.choose_model(current workspace.snapshot, runtime text, model text, restore boolean) FROM PUBLIC;


--
-- Name: FUNCTION clear_model(ws uuid, expected_version bigint, request_id text); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.clear_model(ws uuid, expected_version bigint, request_id text) FROM PUBLIC;
GRANT ALL ON FUNCTION workspace.clear_model(ws uuid, expected_version bigint, request_id text) TO runtime_registry_operator;
GRANT ALL ON FUNCTION workspace.clear_model(ws uuid, expected_version bigint, request_id text) TO runtime_registry_admin;


--
-- Name: FUNCTION create_workspace(name text, runtime text, model text, id uuid, request_id text); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.create_workspace(name text, runtime text, model text, id uuid, request_id text) FROM PUBLIC;
GRANT ALL ON FUNCTION workspace.create_workspace(name text, runtime text, model text, id uuid, request_id text) TO runtime_registry_operator;
GRANT ALL ON FUNCTION workspace.create_workspace(name text, runtime text, model text, id uuid, request_id text) TO runtime_registry_admin;


--
-- Name: FUNCTION credentials(ws uuid); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.credentials(ws uuid) FROM PUBLIC;


--
-- Name: FUNCTION delete_secret(ws uuid, name text, expected_version bigint); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.delete_secret(ws uuid, name text, expected_version bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION workspace.delete_secret(ws uuid, name text, expected_version bigint) TO runtime_registry_operator;
GRANT ALL ON FUNCTION workspace.delete_secret(ws uuid, name text, expected_version bigint) TO runtime_registry_admin;


--
-- Name: FUNCTION delete_workspace(ws uuid, expected_version bigint); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.delete_workspace(ws uuid, expected_version bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION workspace.delete_workspace(ws uuid, expected_version bigint) TO runtime_registry_operator;
GRANT ALL ON FUNCTION workspace.delete_workspace(ws uuid, expected_version bigint) TO runtime_registry_admin;


--
-- Name: FUNCTION describe_change(current workspace.snapshot, decided workspace.decision, action text); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.describe_change(current workspace.snapshot, decided workspace.decision, action text) FROM PUBLIC;


--
-- Name: FUNCTION entry_of(with_key keyring.data_key, recorded workspace.changes); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.entry_of(with_key keyring.data_key, recorded workspace.changes) FROM PUBLIC;


--
-- Name: FUNCTION get_secret(ws uuid, name text); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.get_secret(ws uuid, name text) FROM PUBLIC;
GRANT ALL ON FUNCTION workspace.get_secret(ws uuid, name text) TO runtime_registry_operator;
GRANT ALL ON FUNCTION workspace.get_secret(ws uuid, name text) TO runtime_registry_admin;


--
-- Name: FUNCTION get_workspace(ws uuid); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.get_workspace(ws uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION workspace.get_workspace(ws uuid) TO runtime_registry_reader;
GRANT ALL ON FUNCTION workspace.get_workspace(ws uuid) TO runtime_registry_operator;
GRANT ALL ON FUNCTION workspace.get_workspace(ws uuid) TO runtime_registry_admin;


--
-- Name: FUNCTION history(ws uuid); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.history(ws uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION workspace.history(ws uuid) TO runtime_registry_reader;
GRANT ALL ON FUNCTION workspace.history(ws uuid) TO runtime_registry_operator;
GRANT ALL ON FUNCTION workspace.history(ws uuid) TO runtime_registry_admin;


--
-- Name: FUNCTION hold(); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.hold() FROM PUBLIC;


--
-- Name: FUNCTION keep_pair(current workspace.snapshot, credentials text[]); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.keep_pair(current workspace.snapshot, credentials text[]) FROM PUBLIC;


--
-- Name: FUNCTION key_uses(verify boolean); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.key_uses(verify boolean) FROM PUBLIC;


--
-- Name: FUNCTION list_secrets(ws uuid); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.list_secrets(ws uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION workspace.list_secrets(ws uuid) TO runtime_registry_reader;
GRANT ALL ON FUNCTION workspace.list_secrets(ws uuid) TO runtime_registry_operator;
GRANT ALL ON FUNCTION workspace.list_secrets(ws uuid) TO runtime_registry_admin;


--
-- Name: FUNCTION lock_workspace(ws uuid, runtime text, needs_key boolean); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.lock_workspace(ws uuid, runtime text, needs_key boolean) FROM PUBLIC;


--
-- Name: FUNCTION own_position(); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.own_position() FROM PUBLIC;


--
-- Name: FUNCTION preview_runtime_change(ws uuid, runtime text, model text, restore boolean); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.preview_runtime_change(ws uuid, runtime text, model text, restore boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION workspace.preview_runtime_change(ws uuid, runtime text, model text, restore boolean) TO runtime_registry_reader;
GRANT ALL ON FUNCTION workspace.preview_runtime_change(ws uuid, runtime text, model text, restore boolean) TO runtime_registry_operator;
GRANT ALL ON FUNCTION workspace.preview_runtime_change(ws uuid, runtime text, model text, restore boolean) TO runtime_registry_admin;


--
-- Name: FUNCTION read_workspace(ws uuid, needs_key boolean); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.read_workspace(ws uuid, needs_key boolean) FROM PUBLIC;


--
-- Name: FUNCTION recorded_answer(with_key keyring.data_key, ws uuid, request_id text, action text, runtime text, model text, restore boolean, name text); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.recorded_answer(with_key keyring.data_key, ws uuid, request_id text, action text, runtime text, model text, restore boolean, name text) FROM PUBLIC;


--
-- Name: FUNCTION rename_workspace(ws uuid, name text, runtime text, model text, restore boolean, expected_version bigint, request_id text); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.rename_workspace(ws uuid, name text, runtime text, model text, restore boolean, expected_version bigint, request_id text) FROM PUBLIC;
GRANT ALL ON FUNCTION workspace.rename_workspace(ws uuid, name text, runtime text, model text, restore boolean, expected_version bigint, request_id text) TO runtime_registry_operator;
GRANT ALL ON FUNCTION workspace.rename_workspace(ws uuid, name text, runtime text, model text, restore boolean, expected_version bigint, request_id text) TO runtime_registry_admin;


--
-- Name: FUNCTION reseal_workspace(with_key keyring.data_key, ws uuid); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.reseal_workspace(with_key keyring.data_key, ws uuid) FROM PUBLIC;


--
-- Name: FUNCTION route(ws uuid, runtime text, model text); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.route(ws uuid, runtime text, model text) FROM PUBLIC;


--
-- Name: FUNCTION secret_name(name text); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.secret_name(name text) FROM PUBLIC;


--
-- Name: FUNCTION secret_unreadable(ws uuid); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.secret_unreadable(ws uuid) FROM PUBLIC;


--
-- Name: FUNCTION set_model(ws uuid, model text, expected_version bigint, request_id text); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.set_model(ws uuid, model text, expected_version bigint, request_id text) FROM PUBLIC;
GRANT ALL ON FUNCTION workspace.set_model(ws uuid, model text, expected_version bigint, request_id text) TO runtime_registry_operator;
GRANT ALL ON FUNCTION workspace.set_model(ws uuid, model text, expected_version bigint, request_id text) TO runtime_registry_admin;


--
-- Name: FUNCTION set_secret(ws uuid, name text, value text, expected_version bigint); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.set_secret(ws uuid, name text, value text, expected_version bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION workspace.set_secret(ws uuid, name text, value text, expected_version bigint) TO runtime_registry_operator;
GRANT ALL ON FUNCTION workspace.set_secret(ws uuid, name text, value text, expected_version bigint) TO runtime_registry_admin;


--
-- Name: FUNCTION version_conflict(ws uuid, version bigint, expected_version bigint); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.version_conflict(ws uuid, version bigint, expected_version bigint) FROM PUBLIC;


--
-- Name: FUNCTION workspace_not_found(ws uuid); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.workspace_not_found(ws uuid) FROM PUBLIC;


--
-- Name: FUNCTION write_change(current workspace.snapshot, decided workspace.decision, action text, restore boolean, request_id text, name text, secret text, secret_value keyring.sealed_value); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.write_change(current workspace.snapshot, decided workspace.decision, action text, restore boolean, request_id text, name text, secret text, secret_value keyring.sealed_value) FROM PUBLIC;


--
-- Name: FUNCTION write_secret_change(current workspace.snapshot, secret text, action text, changed boolean, stored keyring.sealed_value); Type: ACL; Schema: workspace; Owner: -
--

REVOKE ALL ON FUNCTION workspace.write_secret_change(current workspace.snapshot, secret text, action text, changed boolean, stored keyring.sealed_value) FROM PUBLIC;


--
-- PostgreSQL database dump complete
--


