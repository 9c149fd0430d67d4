# All commands for people. Each target is thin; the work is in cargo, npm and pytest.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
COMPOSE := docker compose --env-file deploy/.env
FLAGS ?=
FUZZ_SECONDS ?= 60
SEEDS ?= 1000
FROM ?= 0
JOBS ?= $(shell nproc)
# The simulation compiles these crates with optimisation; their dependencies stay as in every test.
SIMULATED := block catalog clock cluster compactor ingester limits metastore model querier query rpc simulation storage
SIMULATION := cargo run -q --locked -p simulation $(foreach crate,$(SIMULATED),--config profile.dev.package.$(crate).opt-level=2) --

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

run: build ## Build everything, start the server on http://localhost:4040 with data in ./data
	./target/release/pyrograph server -server.http-listen-address=127.0.0.1 $(FLAGS)

build: ui ## Build the UI and the binary that contains it, without optimisation across crates
	@echo "Building the server: 4 to 5 minutes on 2 cores the first time, then seconds."
	cargo build --release --locked -p pyrograph

dist: ui ## Build the binary of the image, optimised across crates, into target/dist
	cargo build --profile dist --locked -p pyrograph

ui: ui/dist/index.html ## Build the UI into ui/dist
ui/dist/index.html: ui/package-lock.json ui/index.html $(shell find ui/src ui/public -type f 2>/dev/null)
	@echo "Building the UI."
	cd ui && npm ci --no-audit --no-fund && npm run build && touch dist/index.html

demo: build $(VENV) ## Start the server and two small programs that push to it with the real SDKs (Python, Go)
	$(VENV)/bin/python deploy/demo/demo.py ./target/release/pyrograph $(FLAGS)

test: ui $(VENV) tools ## Every test: lint, unit, property, end to end, real SDKs, a headless browser
	bash tests/run.sh

lint: $(VENV) tools ## Formatting, clippy, unused dependencies, dependency rules
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy -p storage --locked -- -D warnings # Without the optional stores.
	$(VENV)/bin/cargo-shear --locked --deny-warnings
	cargo fetch -q --locked # cargo-deny also checks crates of other platforms.
	cargo deny --offline check bans licenses sources

bench: dist $(VENV) ## Measure on a directory and on SeaweedFS, about ten minutes; ONLY=ingest,queries picks scenarios (docs/benchmarks.md)
	cargo build --profile dist --locked -p bench && ./target/dist/bench $(if $(ONLY),--only $(ONLY))

simulate: ## Run SEEDS simulated clusters (default 1000) from seed FROM on JOBS cores; a failing seed prints how to replay it
	$(SIMULATION) --seeds $(SEEDS) --from $(FROM) --jobs $(JOBS)

simulate-seed: ## Show every event in the simulated cluster of one SEED
	$(SIMULATION) --seed $(SEED) --trace

chaos: ui $(VENV) ## Inject every fault into a cluster of real processes, about ten minutes
	cargo build -q --locked -p pyrograph
	PYROGRAPH_CHAOS=long PYROGRAPH_WEED=$(CURDIR)/.venv/bin/weed .venv/bin/python -m pytest tests/e2e/test_chaos.py -q -s

simulate-planted: ## Show which seed finds each planted bug
	$(SIMULATION) --planted all --seeds $(SEEDS) --jobs $(JOBS)

fuzz: ## Fuzz the decoders for FUZZ_SECONDS each (default 60); needs a nightly toolchain
	for target in pprof_decode jfr multipart folded trees gzip; do bash fuzz/run.sh $$target -max_total_time=$(FUZZ_SECONDS) || exit 1; done

config-reference: ## Regenerate config/reference.yaml from the doc comments
	cargo run -q -p pyrograph -- config reference > config/reference.yaml.new && mv config/reference.yaml.new config/reference.yaml

install: ## Start the core stack: network, Grafana on :3000, Prometheus, Tempo (docker)
	$(COMPOSE) -f deploy/core.compose.yaml up -d

install-profiling: ## Start Pyrograph as oib-pyroscope on the core network (docker)
	$(COMPOSE) -f deploy/profiling.compose.yaml up -d --build

status: ## Show the containers of both stacks (docker)
	$(COMPOSE) -f deploy/core.compose.yaml -f deploy/profiling.compose.yaml ps

logs-profiling: ## Follow Pyrograph's log (docker)
	$(COMPOSE) -f deploy/profiling.compose.yaml logs -f

tools: ## Install the test tools outside of lock files: cargo-deny, Chromium, helm, promtool
	bash tests/tools.sh

$(VENV): tests/requirements.txt
	$(PYTHON) -m venv $(VENV) && $(VENV)/bin/pip install -q --disable-pip-version-check -r tests/requirements.txt && touch $(VENV)

.PHONY: help run build dist ui demo test lint bench chaos simulate simulate-seed simulate-planted fuzz config-reference install install-profiling status logs-profiling tools
