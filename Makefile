# One command each; every target makes the virtual environment and installs what it needs.
PYTHON ?= python3
# Tests whose bytecode is not kept take twice as long to collect, in each worker and each time.
unexport PYTHONDONTWRITEBYTECODE
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 4
CHAOS_S ?= 600
CHAOS_SEED ?= 11
CHAOS_MAY ?= fail
HOSTILE := $(addprefix tests/,core/test_jit.py dns/test_message.py dns/test_message_kernels.py dns/test_name.py \
	sources/capture/test_capture.py sources/capture/test_capture_damage.py sources/capture/test_capture_kernels.py sources/capture/test_frames.py \
	sources/listener/test_datapath.py sources/listener/test_cache.py sources/test_table.py sources/logs/test_log_blocks.py sources/dnstap/test_dnstap.py \
	sources/dnstap/test_merging.py sources/live/test_live_powerdns.py sources/live/test_live_packets.py sources/listener/test_traffic.py \
	stream/test_record.py stream/test_ring.py stream/test_rings.py store/test_postgres_copy.py scoring/test_information.py \
	scoring/test_reverse_names.py scoring/test_scoring_kernels.py detection/test_snapshot.py detection/test_state.py \
	detection/tripwires/test_tripwires.py)
NETWORKS := $(addprefix tests/,scoring/types/test_types.py learning/sequences/test_gru.py runtime/test_sequences_live.py \
	cli/test_model_types.py learning/test_type_comparison.py)
HUNTING := $(addprefix tests/,store/hunting cli/console/test_hunt.py runtime/test_hunt_live.py web/months)
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
.DEFAULT_GOAL := help
.PHONY: help install install-dev run test test-slow test-deep test-hunt test-bounds lint fmt bench e2e chaos adversary demo demo-learning train evaluate settings suffixes images lock clean

help:  ## what there is
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("cannot install: Python 3.11 or later is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@echo "installing into $(VENV), once: a minute or two"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --require-hashes -r requirements.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@$(BIN)/python -m agents.runtime.warmup
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	$(PIP) install --require-hashes -r requirements-dev.txt
	@touch $@

install: $(VENV)/.installed  ## the product, in .venv (with .venv/bin/dns-tunnel)

install-dev: $(VENV)/.installed-dev  ## and what tests and linters need

run: install  ## listener, API and scheduler in one process, on embedded SQLite
	$(BIN)/dns-tunnel run

test: install-dev  ## all tests but those of make test-slow and make e2e
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not e2e and not slow"

test-slow: install-dev  ## processes that hang and die, whole retrainings, weeks of traffic: more than 0.8 s of CPU each
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations=30 -m "slow and not e2e" $$(grep -rl --include='test_*.py' 'mark\.slow' tests)

test-deep: install-dev  ## tests of networks, with the extra deep (620 MB), in processes of their own: JAX and fork do not mix
	$(PIP) install --require-hashes -r requirements-deep.txt
	$(BIN)/python -m pytest -n 2 --dist loadfile $(NETWORKS)

test-hunt: install-dev  ## tests of hunting stores, with DuckDB (70 MB) and ClickHouse's engine (chdb, 534 MB)
	$(PIP) install --require-hashes -r requirements-hunt-test.txt
	$(BIN)/python -m pytest -n 2 --dist loadfile $(HUNTING)

test-bounds: install-dev  ## tests of kernels that read hostile bytes, with every index checked
	@cache=$$(mktemp -d) && trap 'rm -rf "$$cache"' EXIT && export NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR="$$cache" && \
	$(BIN)/python -m agents.runtime.warmup && \
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" $(HOSTILE)

e2e: install-dev  ## docker compose, real tunnels, kill -9, make chaos; says what it skips where an engine or a tool is missing
	$(BIN)/python -m pytest -rs --durations=15 -m e2e tests/e2e tests/runtime/test_warmup.py
	$(MAKE) chaos || [ "$(CHAOS_MAY)" = show ]

chaos: install-dev  ## every fault in random order under load for CHAOS_S seconds (600): which promises were kept
	$(BIN)/python -m tests.chaos --seconds $(CHAOS_S) --seed $(CHAOS_SEED)

adversary: install-dev  ## what gets past the detector, how loud it is about an organisation, which malware it finds: tables
	$(BIN)/python -m tests.adversary
	$(BIN)/python -m tests.corpora.organisation --attacker
	$(BIN)/python -m tests.corpora.organisation --lookalikes --weeks 1
	$(BIN)/python -m tests.corpora.families_matrix

lint: install-dev  ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

fmt: install-dev  ## format, and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: install  ## replay a capture with a tunnel in it, retrain, keep both in data/demo to look at
	scripts/demo.sh $(BIN)/dns-tunnel

demo-learning: install  ## two weeks of a made-up network: labels, candidate, gates, canary, promotion, poison, roll-back
	$(BIN)/python scripts/demo_learning.py

bench: install-dev  ## speed of replay, listener, forwarders, stores and retraining, as ratios within one run
	$(BIN)/python -m tests.bench

evaluate: install  ## detection on labelled captures: make evaluate MANIFEST=path/to/MANIFEST.tsv
	@test -n "$(MANIFEST)" || { echo "cannot evaluate: name a manifest, make evaluate MANIFEST=…" >&2; exit 2; }
	$(BIN)/dns-tunnel evaluate $(MANIFEST) --json evaluation.json

train: install  ## the shipped names and the shipped model, made anew
	$(BIN)/python scripts/maintainer/make_baseline.py

settings: install  ## .env.example and docs/settings.md, from the settings of every kind
	$(BIN)/python scripts/maintainer/settings_files.py

suffixes: install-dev  ## the public suffix list, from the pinned package
	$(BIN)/python scripts/maintainer/refresh_suffixes.py

images: install  ## base images pinned by tag and digest; asks their registry through Docker
	$(BIN)/python scripts/maintainer/pin_images.py Dockerfile docker-compose.yml

lock:  ## pin every dependency with hashes
	uv pip compile --universal --python-version 3.11 --generate-hashes -q --extra build pyproject.toml -o requirements.txt
	uv pip compile --universal --python-version 3.11 --generate-hashes -q --extra build --extra dev pyproject.toml -o requirements-dev.txt
	for extra in apprise deep flower hunt hunt-test kafka mlflow nats pyod; do uv pip compile --universal --python-version 3.11 --generate-hashes -q --extra build --extra $$extra \
		-c requirements.txt pyproject.toml -o requirements-$$extra.txt; done

clean:  ## the virtual environment and caches
	rm -rf $(VENV) agents/core/__pycache__ .mypy_cache .ruff_cache .pytest_cache .hypothesis
