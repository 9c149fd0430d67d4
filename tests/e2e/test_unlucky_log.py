"""A log that cannot be written loses log lines and affects nothing else."""

import fcntl
import os
import shutil
import subprocess

import pytest
from harness import pprof, push, wait_for

LABELS = {"service_name": "app"}
PIPE_BYTES = 4096


@pytest.fixture
def pipe():
    """(read end, write end) of a small pipe."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    ends = {reading, writing}
    yield reading, writing, lambda end: (ends.discard(end), os.close(end))
    for end in ends:
        os.close(end)


def serves(server, pushes):
    for number in range(pushes):
        status, body = push(server, LABELS, pprof({(f"f{number}",): 1}))
        assert status == 200, (number, status, body)
    assert server.total("{}") == pushes
    # Refused requests are logged too.
    assert server.post("/ingest?name=x.cpu&format=jfr", b"x")[0] >= 400


def test_a_log_whose_reader_is_gone_stops_nothing(new_server, pipe):
    reading, writing, close = pipe
    server = new_server("-self-profiling.disable-push", "-log.level=debug", start=False)
    server.stderr = writing
    close(reading)
    server.start()
    close(writing)
    serves(server, 20)
    assert server.metric("pyrograph_log_lines_lost_total") > 0
    assert server.stop() == 0


def test_a_log_whose_reader_hangs_stops_nothing(new_server, pipe):
    reading, writing, close = pipe
    server = new_server("-self-profiling.disable-push", "-log.level=debug", start=False)
    server.stderr = writing
    server.start()
    close(writing)
    serves(server, 20)
    assert server.stop() == 0, "the last lines are given up, the drain is not"
    written = os.read(reading, 2 * PIPE_BYTES)
    assert b"memory is divided" in written, "the first lines are there"
    assert written.count(b"answered") < 20, "the pipe was full nearly all the time"


def test_a_log_without_space_stops_nothing(new_server):
    server = new_server("-self-profiling.disable-push", "-log.level=debug", start=False)
    with open("/dev/full", "wb") as full:
        server.stderr = full
        server.start()
    serves(server, 20)
    assert server.metric("pyrograph_log_lines_lost_total") > 0
    assert server.stop() == 0


def test_a_refused_start_ends_with_and_without_a_log(new_server):
    server = new_server("-storage.backend=nonsense", start=False)
    with open("/dev/full", "wb") as full:
        server.stderr = full
        with pytest.raises(RuntimeError, match="server exited with 1:"):
            server.start()


def test_log_and_data_on_one_disk_that_fills_up_and_grows(new_server, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        server = new_server(f"-storage.filesystem.dir={disk}/data", "-self-profiling.disable-push", start=False)
        with open(disk / "log", "ab") as log:
            server.stderr = log
            server.start()
        assert push(server, LABELS, pprof({("before",): 1}))[0] == 200
        (disk / "filler").write_bytes(b"x" * max(0, shutil.disk_usage(disk).free - 4096))
        status, body = push(server, LABELS, pprof({(f"f{n}", "lost"): 1 for n in range(5000)}))
        assert status == 503 and b"no space left" in body, (status, body)
        subprocess.run(["mount", "-o", "remount,size=24m", disk], check=True)
        wait_for(lambda: push(server, LABELS, pprof({("after",): 1}))[0] == 200)
        assert server.total("{}") >= 2
        assert server.stop() == 0
    finally:
        if server.process.poll() is None:
            server.kill()
        subprocess.run(["umount", "-l", disk], check=True)
