#!/bin/bash
# Installs the test tools that no lock file of the project brings. Does nothing where they are there.
set -euo pipefail
cargo deny --version >/dev/null 2>&1 || cargo install --locked --quiet cargo-deny@0.20.2
if ! command -v chromium >/dev/null; then
    sudo=$(command -v sudo || true)
    $sudo apt-get update -qq && $sudo apt-get install -y -qq chromium >/dev/null
fi
