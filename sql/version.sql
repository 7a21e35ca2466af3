-- The revision these files stand at, so that a database installed by psql can be migrated later.

insert into registry.alembic_version (version_num) values ('0007');
