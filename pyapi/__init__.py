"""Runtime Registry: which models each agent runtime can run, kept in Postgres."""
