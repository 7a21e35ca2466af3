create or replace function fleet.load_registry(
  manifest jsonb,
  on_orphan text default 'refuse',
  dry_run boolean default false
)
returns fleet.registry_load
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if load_registry.manifest is null then
    perform registry.invalid_argument('manifest', 'is null');
  end if;
  return fleet.replace_registry(load_registry.manifest, load_registry.on_orphan, load_registry.dry_run, null);
end
$$;
comment on function fleet.load_registry(jsonb, text, boolean) is
  'Replaces the registry by a manifest, as a new numbered revision, and says what that added, removed and changed.
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
