"""pyarrow and DuckDB read the samples of a segment and of a block, and get the same sums as our reader."""

import os
import subprocess
import sys

from harness import ROOT


def test_sql_engines_get_our_sums(tmp_path):
    write = ["cargo", "run", "-q", "--locked", "-p", "block", "--example", "write_objects", tmp_path]
    subprocess.run(write, cwd=ROOT, check=True, timeout=900, env={**os.environ})
    run = subprocess.run(
        [sys.executable, ROOT / "tests/open_data/read_block.py", tmp_path], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stdout + run.stderr
    print(run.stdout)
