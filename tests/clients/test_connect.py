"""The official Connect clients over every transport: Connect JSON and binary, gRPC, gRPC-web."""

import os
import shutil
import subprocess

import pytest
from harness import ROOT, pprof, push


@pytest.mark.skipif(not shutil.which("npm"), reason="npm is not installed")
def test_official_clients(server):
    push(server, {"service_name": "app"}, pprof({("main",): 1}))
    folder = ROOT / "tests/clients/connect"
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--silent"], cwd=folder, check=True, timeout=300)
    run = subprocess.run(
        ["node", "--test"], cwd=folder, env={**os.environ, "PYROGRAPH_URL": server.url},
        capture_output=True, text=True, timeout=300,
    )
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]
