# Needs Python 3.11 or newer, make and a network. Everything installed goes into .venv, at the
# versions of constraints.txt; .venv is made anew when that file or pyproject.toml changes.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
INSTALL := $(PIP) --build-constraint constraints.txt --editable

# --no-plpgsql: pgspot cannot parse variables of our composite types. PS003 to PS005, which make
#   every function pin its search_path, look at plpgsql functions all the same.
# PS001: that leaves the operators outside functions, in CHECK (x IN ('a', 'b')): pg_catalog has an
#   exact match for them and comes first.
# PS010: the schema registry may be there already, with the version table that alembic makes first.
PGSPOT_FLAGS := --append --no-plpgsql --ignore PS001 --ignore PS010

# make bench ROUNDS=3 SECONDS=1 is a quick look. Its result goes to OUT.json, OUT.txt and OUT.png.
ROUNDS ?= 9
SECONDS ?= 1
OUT ?= bench/latest
BENCH := PYTHONPATH=tests $(BIN)/python -m benchmarks

.PHONY: demo serve test test-sealed soak mutations test-container test-browser matrix lint bench bench-large bench-compare bench-document golden wheel clean

demo: .venv/demo
	@$(BIN)/runtime-registry demo

serve: .venv/serve
	@$(BIN)/runtime-registry serve

test: .venv/dev
	$(BIN)/pytest

# Everything again, with secrets encrypted.
test-sealed: .venv/dev
	RUNTIME_REGISTRY_TEST_SEALED=1 $(BIN)/pytest

# Also what the image of .ci/container brings: plpgsql_check, and PgBouncer in front of the server.
test-container: .venv/dev
	RUNTIME_REGISTRY_TEST_SERVER=container $(BIN)/pytest --override-ini 'norecursedirs=.* browser'

# The page in the machine's own Chromium, which RUNTIME_REGISTRY_CHROMIUM names if it is not in PATH.
test-browser: .venv/browser
	$(BIN)/pytest --override-ini 'norecursedirs=.*' tests/browser

# MATRIX=--if-available: a version that this machine cannot have is no failure.
matrix: .venv/dev
	$(BIN)/python tests/matrix.py $(MATRIX)

# The tests that kill, cut and interrupt, for long: what comes from the environment goes first. The figures go
# into RELIABILITY.md.
soak: export RUNTIME_REGISTRY_KILLS ?= 210
soak: export RUNTIME_REGISTRY_CUTS ?= 2000
soak: export RUNTIME_REGISTRY_INTERRUPTIONS ?= 2000
soak: export RUNTIME_REGISTRY_FAILOVERS ?= 10
soak: export RUNTIME_REGISTRY_PAIRS ?= all
soak: export RUNTIME_REGISTRY_OPERATIONS ?= 100000
soak: export RUNTIME_REGISTRY_MEGABYTES ?= 100
soak: export RELIABILITY_FIGURES ?= $(CURDIR)/.cache/figures.jsonl
soak: .venv/dev
	mkdir -p $(dir $(RELIABILITY_FIGURES)) && rm -f $(RELIABILITY_FIGURES)
	$(BIN)/pytest tests/test_server_kills.py tests/test_connection_cuts.py tests/test_disk_full.py \
	    tests/test_interruptions.py tests/test_failover.py tests/test_pairs.py tests/test_large_manifests.py \
	    tests/test_stateful.py
	$(BIN)/python tests/reliability.py $(RELIABILITY_FIGURES)

# Deliberate faults, one after the other, and the tests that have to catch them.
mutations: .venv/dev
	$(BIN)/python tests/mutations.py
	$(BIN)/python tests/reliability.py

lint: .venv/dev .venv/bench .venv/browser
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/squawk alembic/versions/*.up.sql
	$(BIN)/pgspot $(PGSPOT_FLAGS) $$(sed -n 's|^\\ir |sql/|p' sql/install.sql)

bench: .venv/bench
	@$(BENCH) run --rounds $(ROUNDS) --seconds $(SECONDS) --out $(OUT)

bench-large: .venv/bench
	@$(BENCH) run --large --rounds $(ROUNDS) --seconds $(SECONDS) --out $(OUT)

# make bench-compare A=bench/before.json B=bench/latest.json
bench-compare: .venv/bench
	@$(BENCH) compare $(A) $(B)

# SPEED.md's tables and plot: make bench-document A=bench/first.json B=bench/second.json LARGE=bench/large.json
bench-document: .venv/bench
	@$(BENCH) document $(A) $(B) $(LARGE)

# What the tests compare with: the dump of the schema, and the hashes of revisions that are new.
golden: .venv/dev
	RENEW_GOLDEN=1 $(BIN)/pytest tests/test_migrations.py tests/test_readme.py -k 'golden or released or readme_shows'

wheel: .venv/dev
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*

clean:
	rm -rf .venv .cache bench dist .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/demo: .venv/made
	@echo "Installing what the demo needs into .venv"
	@$(INSTALL) '.[cli,embedded]'
	@touch $@

.venv/serve: .venv/made
	@echo "Installing what the service needs into .venv"
	@$(INSTALL) '.[cli,embedded,http]'
	@touch $@

.venv/dev: .venv/made
	@echo "Installing what the tests and linters need into .venv"
	@$(INSTALL) '.[cli,embedded,http,pool]' --group dev
	@touch $@

.venv/bench: .venv/dev
	@echo "Installing what the benchmarks need into .venv"
	@$(PIP) --group bench
	@touch $@

.venv/browser: .venv/dev
	@echo "Installing what drives a browser into .venv"
	@$(PIP) --group browser
	@touch $@

# pip itself first: the one that comes with Python may be too old for dependency groups.
.venv/made: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Python 3.11 or newer is needed, and '$(PYTHON)' is not that:" \
	        "name another one, as in 'make PYTHON=python3.12'." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "'$(PYTHON)' cannot make virtual environments:" \
	        "install its venv module (Debian and Ubuntu: apt-get install python3-venv)." >&2; exit 1; }
	@$(PYTHON) -m venv --clear .venv
	@$(PIP) --upgrade pip
	@touch $@
