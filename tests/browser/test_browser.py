"""A headless browser clicks through the page of a real server."""

import os
import shutil
import subprocess
import time

import pytest
from harness import ROOT, pprof, push


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
def test_the_page(server):
    for i in range(20):
        stacks = {("leaf", "work", "main"): 30 + i, ("other_leaf", "work", "main"): 10, ("idle", "main"): 5}
        pushed = pprof(stacks, time_nanos=time.time_ns() - i * 15 * 10**9)
        assert push(server, {"service_name": "shop", "pod": f"pod-{i % 3}"}, pushed)[0] == 200
    run = subprocess.run(
        ["npm", "run", "-s", "test:browser"], cwd=ROOT / "ui", env={**os.environ, "PYROGRAPH_URL": server.url, "CI": "1"},
        capture_output=True, text=True, timeout=600,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
