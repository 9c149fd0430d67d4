#!/bin/bash
# Every test, fastest first. Called by `make test`, which installs the tools.
set -euo pipefail
cd "$(dirname "$0")/.."
step() { echo; echo "=== $* ($(date +%H:%M:%S))"; }

step lint
make -s lint

export PYROGRAPH_WEED="$PWD/.venv/bin/weed"
step "Rust: unit, property, conformance, architecture"
cargo test --workspace --locked

step "simulation: a hundred clusters with faults"
cargo run -q --locked -p simulation -- --seeds 100 --from 1000 --jobs 2

step "UI: types and units"
(cd ui && npm run -s lint && npm test -s)

step "processes: end to end, real SDKs, compatibility, open data, browser"
cargo build --locked -p pyrograph
.venv/bin/python -m pytest tests -q --durations=10
