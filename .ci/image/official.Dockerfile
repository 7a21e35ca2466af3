FROM postgres:17
RUN apt-get update \
 && apt-get install --yes --no-install-recommends postgresql-17-plpgsql-check pgbouncer \
 && rm -rf /var/lib/apt/lists/*
