"""Comparison with recorded answers of Pyroscope, if they are stored beside the project."""

import re
import subprocess
import sys

import pytest
from harness import SHARED

# Number of differing comparisons per area: unsupported features. A number may only fall.
KNOWN = {
    "connect": 0,
    "labels": 0,
    "render": 0,
    "query": 0,
    "errors": 4,  # A form that is compressed as a whole is read (docs/pushing.md).
    "jfr": 12,  # A compressed recording is read without a form; recordings with texts in their pool are read.
    "corrupt": 1,  # speedscope
    "tenants": 6,  # OTLP, ad hoc profiles
    "routes": 4,  # OTLP, /admin, /memberlist, /api/swagger.json
    "folded": 0,
    # Two: bare addresses are named (docs/adr/0005). Two: a form without a file "profile" is refused instead of
    # ignored (docs/pushing.md).
    "pprof": 4,
}

# The recorded profiles are years old, and each case waits for its pushes.
FLAGS = (
    "-self-profiling.disable-push",
    "-auth.multitenancy-enabled",
    "-retention-period=0",
    "-segment-writer.segment-duration=40ms",
    "-ingester.segment-duration-min=20ms",
)


@pytest.mark.skipif(not (SHARED / "golden/replay.py").exists(), reason="no recorded answers beside the project")
def test_answers_equal_the_recorded_ones(new_server):
    server = new_server(*FLAGS)
    failed = {}
    for area, allowed in KNOWN.items():
        run = subprocess.run(
            [sys.executable, SHARED / "golden/replay.py", "--url", server.url, "--case", area, "--jobs", "8"],
            capture_output=True, text=True, timeout=1200,
        )
        counts = re.findall(r"(\d+) passed, (\d+) failed", run.stdout)
        assert counts, run.stdout[-2000:] + run.stderr[-2000:]
        passed, wrong = map(int, counts[-1])
        print(f"{area}: {passed} as recorded, {wrong} not")
        if wrong > allowed:
            failed[area] = [line for line in run.stdout.splitlines() if line.startswith("FAIL")][:20]
    assert not failed, failed
