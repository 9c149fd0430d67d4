"""A headless browser uses the page of a real server."""

import os
import pathlib
import shutil
import subprocess
import time

import pytest
import seaweed
from harness import ROOT, free_port, pprof, push

pytestmark = pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")


def stories(server, *arguments, **environment):
    """Runs tests of ui/tests/browser on the page of a server."""
    run = subprocess.run(
        ["npm", "run", "-s", "test:browser", "--", *arguments],
        cwd=ROOT / "ui", env={**os.environ, "PYROGRAPH_URL": server.url, "CI": "1", **environment},
        capture_output=True, text=True, timeout=900,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    return run.stdout


def push_some(server, leaf="leaf", count=20):
    for i in range(count):
        stacks = {(leaf, "work", "main"): 30 + i, ("other_leaf", "work", "main"): 10, ("idle", "main"): 5}
        pushed = pprof(stacks, time_nanos=time.time_ns() - i * 15 * 10**9)
        assert push(server, {"service_name": "shop", "pod": f"pod-{i % 3}"}, pushed)[0] == 200


def test_the_page(server):
    push_some(server)
    stories(server)


def test_the_page_names_a_damaged_block(new_server):
    merging = ("-self-profiling.disable-push", "-metastore.merge-after=1s", "-compactor.poll-interval=100ms")
    server = new_server(*merging)
    blocks = pathlib.Path(server.directory, "block")
    push_some(server, "damaged", count=1)
    until = time.monotonic() + 60
    while not (found := [path for path in blocks.rglob("*") if path.is_file() and "#" not in path.name]):
        assert time.monotonic() < until, "nothing was merged"
        time.sleep(0.1)
    time.sleep(2)  # the catalog knows the block, and that it holds all of the segments
    server.kill()
    server.flags = ("-self-profiling.disable-push", "-metastore.merge-after=1h")
    server.start()
    push_some(server, "whole")
    server.kill()
    for path in found:
        bytes_ = bytearray(path.read_bytes())
        for at in range(len(bytes_) // 4, len(bytes_) * 3 // 4):
            bytes_[at] ^= 0x55
        path.write_bytes(bytes_)
    server.start()
    output = stories(server, "shortfall", PYROGRAPH_DAMAGED=found[0].name)
    assert "1 passed" in output, output


@pytest.mark.skipif(not seaweed.WEED.exists(), reason=f"no {seaweed.WEED}; `make test` installs it")
def test_the_page_shows_the_age_of_its_answers(new_server, tmp_path):
    store = seaweed.Seaweed(tmp_path / "weed")
    store.start()
    port = free_port()

    def role(targets, *flags):
        server = new_server(
            f"-target={targets}", "-server.grpc-listen-address=127.0.0.1", "-self-profiling.disable-push", *flags,
            *seaweed.flags(store.port), start=False,
        )
        until = time.monotonic() + 60
        while True:
            try:
                server.start()
                return server
            except RuntimeError:
                # The bucket does not exist yet.
                assert time.monotonic() < until, server.log()[-2000:]
                time.sleep(0.5)

    try:
        metastore = role("metastore", f"-server.grpc-listen-port={port}")
        rest = role(
            "distributor,ingester,querier,compactor", f"-server.grpc-listen-port={free_port()}", f"-metastore.address=127.0.0.1:{port}"
        )
        push_some(rest)
        output = stories(rest, "shortfall", PYROGRAPH_OWNER_PID=str(metastore.process.pid))
        assert "1 passed" in output, output
    finally:
        store.stop()
