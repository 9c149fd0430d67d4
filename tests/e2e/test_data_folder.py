"""A data directory that is removed, replaced, foreign or full: no acknowledged profile is lost."""

import os
import pathlib
import shutil
import time

import pytest
from harness import pprof, push, wait_for

LABELS = {"service_name": "app"}
NOBODY = 65534


def is_away(server):
    status, body = server.get("/ready")
    return status == 503 and b"removed, replaced or unmounted" in body


def is_refused(server):
    status, body = push(server, LABELS, pprof({("refused",): 1}))
    return status == 503 and b"removed, replaced or unmounted" in body


def test_a_directory_that_is_moved_away_is_not_created_again_and_is_used_when_it_is_back(new_server):
    server = new_server("-self-profiling.disable-push")
    directory = pathlib.Path(server.directory)
    away = directory.with_name("away")
    assert push(server, LABELS, pprof({("before",): 1}))[0] == 200
    directory.rename(away)
    assert is_refused(server), server.log()[-2000:]
    wait_for(lambda: is_away(server))
    assert not directory.exists()
    lines = [line for line in server.log().splitlines() if "ERROR" in line]
    assert len(lines) == 1 and str(directory) in lines[0] and "put it back" in lines[0], lines
    away.rename(directory)
    wait_for(lambda: server.get("/ready")[0] == 200)
    assert push(server, LABELS, pprof({("after",): 1}))[0] == 200
    assert server.total("{}") == 2
    assert server.stop() == 0
    server.start()
    assert server.total("{}") == 2


@pytest.mark.parametrize("removed", ["all", ".lock", "cluster"])
def test_a_directory_that_is_replaced_or_emptied_accepts_no_pushes(new_server, removed):
    server = new_server("-self-profiling.disable-push")
    directory = pathlib.Path(server.directory)
    assert push(server, LABELS, pprof({("before",): 1}))[0] == 200
    time.sleep(2)  # the catalog knows it by now, and is silent
    if removed == "all":
        shutil.copytree(directory, directory.with_name("copy"))
        shutil.rmtree(directory)
        directory.with_name("copy").rename(directory)
    else:
        (directory / removed).unlink()
    files = {path for path in directory.rglob("*") if path.is_file()}
    assert is_refused(server), server.log()[-2000:]
    wait_for(lambda: is_away(server))
    assert {path for path in directory.rglob("*") if path.is_file()} == files
    assert server.stop() == 0
    server.start()
    assert server.total("{}") == 1
    assert push(server, LABELS, pprof({("after",): 1}))[0] == 200


def test_a_folder_of_another_user_in_the_directory_is_not_touched(new_server, tmp_path):
    if os.getuid():
        pytest.skip("needs another user")
    server = new_server("-self-profiling.disable-push", start=False)
    directory = pathlib.Path(server.directory)
    foreign = directory / "lost+found"
    foreign.mkdir(parents=True)
    foreign.chmod(0o700)
    os.chown(directory, NOBODY, NOBODY)
    for above in directory.parents:
        if tmp_path.parent.parent in [above, *above.parents]:
            above.chmod(0o755)
    server.user = NOBODY
    server.start()
    assert push(server, LABELS, pprof({("main",): 1}))[0] == 200
    server.stop()
    (directory / "log" / "mine").mkdir()
    (directory / "log" / "mine").chmod(0o700)
    with pytest.raises(RuntimeError, match="server exited with 1:"):
        server.start()
    line = server.log().splitlines()[-1]
    assert "cannot use directory" in line and str(directory / "log" / "mine") in line, line


def fill(disk):
    with open(disk / "filler", "wb", buffering=0) as filler:
        try:
            while True:
                filler.write(b"x" * 4096)
        except OSError:
            return


def test_a_push_on_a_full_disk_fails_at_once_with_the_cause_and_one_log_line(new_server, disk):
    server = new_server(f"-storage.filesystem.dir={disk}/data", "-self-profiling.disable-push")
    assert push(server, LABELS, pprof({("before",): 1}))[0] == 200
    time.sleep(2)  # the catalog knows it by now
    fill(disk)
    began = time.monotonic()
    for number in range(10):
        status, body = push(server, LABELS, pprof({(f"lost{number}",): 1}))
        assert status == 503, (status, body)
        assert b"no space left" in body and b"free some, or shorten the retention" in body, body
    lines = [line for line in server.log().splitlines() if "WARN" in line and "takes no segments" in line]
    assert 1 <= len(lines) <= 1 + (time.monotonic() - began) // 60, lines
    (disk / "filler").unlink()
    assert push(server, LABELS, pprof({("after",): 1}))[0] == 200
    assert server.total("{}") == 2
    assert server.stop() == 0


def test_a_server_started_on_a_full_disk_answers_and_accepts_pushes_once_there_is_space(new_server, disk):
    server = new_server(f"-storage.filesystem.dir={disk}/data", "-self-profiling.disable-push")
    assert push(server, LABELS, pprof({("before",): 7}))[0] == 200
    time.sleep(2)  # the catalog knows it by now
    server.kill()
    fill(disk)
    server.start()
    assert server.total("{}") == 7
    status, body = push(server, LABELS, pprof({("lost",): 1}))
    assert status == 503 and b"no space left" in body, (status, body)
    (disk / "filler").unlink()
    assert push(server, LABELS, pprof({("after",): 1}))[0] == 200
    assert server.total("{}") == 8
    assert server.stop() == 0


def test_retention_frees_a_full_disk_after_a_restart(new_server, disk):
    flags = [
        f"-storage.filesystem.dir={disk}/data",
        "-self-profiling.disable-push",
        "-metastore.merge-after=1s",
        "-metastore.sweep-grace=5s",
        "-metastore.retention-interval=1s",
        "-compactor.poll-interval=100ms",
        "-compactor.sweep-interval=1s",
    ]
    server = new_server(*flags)
    old = time.time_ns() - 7_200 * 10**9
    for part in range(4):
        stacks = {(os.urandom(200).hex(),): 1 for _ in range(2_000)}
        assert push(server, {"service_name": f"old{part}"}, pprof(stacks, time_nanos=old))[0] == 200
    blocks = lambda: [path for path in (disk / "data").rglob("block/*/*/*") if path.is_file()]  # noqa: E731
    wait_for(lambda: sum(path.stat().st_size for path in blocks()) > 1 << 20, 60)
    server.kill()
    fill(disk)
    server.flags = [*server.flags, "-retention-period=1h"]
    server.start()
    status, body = push(server, LABELS, pprof({("lost",): 1}))
    assert status == 503 and b"no space left" in body, (status, body)
    wait_for(lambda: push(server, LABELS, pprof({("after",): 1}))[0] == 200, 90)
    assert (disk / "filler").exists()
    assert server.total("{}") == 1
    assert server.stop() == 0
