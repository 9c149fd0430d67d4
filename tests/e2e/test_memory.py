"""A server with little memory survives any pushes and queries, and names bytes and setting in each refusal."""

import concurrent.futures
import gzip
import json
import os
import pathlib
import random
import threading
import time
import zlib

import pytest
from harness import CPU, _field, _varint, now_millis, pprof, push

MIB = 1 << 20
LIMIT = 256 * MIB
QUERIES = "/querier.v1.QuerierService/"
# Version 1 has a separate hierarchy for memory, version 2 a common one.
GROUPS = [(pathlib.Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"), (pathlib.Path("/sys/fs/cgroup"), "memory.max")]


def hostile(seed, stacks=15_000, depth=250):
    """A pprof of just under 4 MiB whose stacks all differ and hardly share callers."""
    functions = range(1, 128)
    # Ids of one byte, so that as many frames as possible fit.
    to_ids = bytes(1 + byte % len(functions) for byte in range(256))
    frames = random.Random(seed).randbytes(stacks * depth).translate(to_ids)
    value = _field(2, _varint(1))
    parts = [_field(1, _field(1, 1) + _field(2, 2)), _field(3, _field(1, 1) + _field(7, 1))]
    parts += [_field(2, _field(1, frames[at : at + depth]) + value) for at in range(0, len(frames), depth)]
    for i in functions:
        parts.append(_field(4, _field(1, i) + _field(2, 1) + _field(4, _field(1, i))))
        parts.append(_field(5, _field(1, i) + _field(2, 2 + i)))
    strings = [b"", b"cpu", b"nanoseconds", *(f"f{i}".encode() for i in functions)]
    parts += [_field(6, text) for text in strings]
    parts.append(_field(9, time.time_ns()) + _field(11, _field(1, 1) + _field(2, 2)) + _field(12, 10_000_000))
    body = b"".join(parts)
    assert len(body) < 4 * MIB
    return gzip.compress(body, 1)


def peak_bytes(server):
    """Peak memory, without the pages of the binary, which are many in a debug build."""
    lines = pathlib.Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    kib = lambda name: next(int(line.split()[1]) for line in lines if line.startswith(name))  # noqa: E731
    return (kib("VmHWM:") - kib("RssFile:")) * 1024


def ask(server, method, selector="{}", nodes=None):
    """(status, body) of a query over all data, in protobuf."""
    body = _field(1, CPU.encode()) + _field(2, selector.encode())
    body += _field(3, now_millis() - 3_600_000) + _field(4, now_millis() + 60_000)
    if nodes:
        body += _field(5, nodes)
    headers = {"Content-Type": "application/proto", "Accept-Encoding": "gzip"}
    return server.request("POST", QUERIES + method, body, headers, timeout=300)


def push_until_taken(server, labels, profile):
    """Pushes like a client: repeats a push that is refused for now."""
    for _ in range(200):
        status, body = push(server, labels, profile)
        if status == 200:
            return
        assert status in (429, 503), (status, body)
        assert b"bytes" in body, body
        time.sleep(0.1)
    raise AssertionError(f"still refused: {body!r}")


class Pusher:
    """Pushes small profiles without a pause, and remembers each answer."""

    def __init__(self, server):
        self.server, self.answers, self.stopping = server, [], threading.Event()
        self.thread = threading.Thread(target=self.run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join()

    def run(self):
        while not self.stopping.is_set():
            self.answers.append(push(self.server, {"service_name": "small"}, pprof({("work", "main"): 7}))[0])
            self.stopping.wait(0.05)


def check_answer(answer):
    status, body = answer
    if status == 200:
        return True
    refusal = json.loads(body)
    assert status == 429 and refusal["code"] == "resource_exhausted", (status, body[:500])
    assert "bytes of memory" in refusal["message"] and "querier.max_memory_bytes" in refusal["message"], refusal
    return False


@pytest.fixture
def small_server(new_server):
    # All data are in objects, some of them merged.
    return new_server(
        "-self-profiling.disable-push",
        f"-server.memory-limit-bytes={LIMIT}",
        "-metastore.merge-after=1s",
        "-querier.query-timeout=5m",
    )


def test_memory_stays_bounded_under_hostile_profiles_and_large_queries(small_server):
    server = small_server
    for seed in range(6):
        push_until_taken(server, {"service_name": f"hostile-{seed % 2}"}, hostile(seed))
    with Pusher(server) as pusher:
        answered = [
            check_answer(ask(server, method, **more))
            for method, more in [
                ("SelectMergeStacktraces", {}),
                ("SelectMergeStacktraces", {"nodes": 1_000_000}),
                ("SelectMergeProfile", {}),
                ("SelectMergeStacktraces", {"selector": '{service_name="small"}'}),
            ]
        ]
        assert answered[-1], "a query that needs little is answered"
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            for method in ("SelectMergeStacktraces", "SelectMergeProfile"):
                list(threads.map(lambda _: check_answer(ask(server, method)), range(8)))  # noqa: B023
    assert server.process.poll() is None
    assert len(pusher.answers) > 5 and set(pusher.answers) == {200}, "pushes go on beside queries"
    assert peak_bytes(server) < LIMIT, f"peak is {peak_bytes(server) // MIB} MiB"
    assert server.metric("pyrograph_memory_limit_bytes") == LIMIT
    assert server.metric("pyrograph_memory_share_refusals_total") > 0


def test_eight_ordinary_queries_at_once_are_all_answered(small_server):
    server = small_server
    draw = random.Random(7)
    for n in range(60):
        stacks = {tuple(f"f{draw.randrange(300)}" for _ in range(20)): n + 1 for _ in range(400)}
        push_until_taken(server, {"service_name": f"app-{n % 6}", "pod": f"p{n % 10}"}, pprof(stacks))
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        for method in ("SelectMergeStacktraces", "SelectMergeProfile"):
            answers = list(threads.map(lambda _: check_answer(ask(server, method)), range(8)))  # noqa: B023
            assert all(answers), method
    assert peak_bytes(server) < LIMIT


def test_small_requests_that_announce_a_large_size_hold_no_memory(small_server):
    server = small_server
    before = server.resident_mib()
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(MIB)
    large = b"".join(compressor.compress(zeros) for _ in range(250)) + compressor.flush()
    headers = {"Content-Type": "application/proto", "Content-Encoding": "gzip"}

    def send(_):
        return server.post("/push.v1.PusherService/Push", large, headers)

    with concurrent.futures.ThreadPoolExecutor(12) as threads:
        for status, body in threads.map(send, range(24)):
            refusal = json.loads(body)
            assert (status, refusal["code"]) == (429, "resource_exhausted"), body
            assert "more than the limit of" in refusal["message"] and "bytes" in refusal["message"]
            assert "server.request_bodies_bytes_max" in refusal["message"], refusal
    assert peak_bytes(server) < (before + 64) * MIB
    assert push(server, {"service_name": "good"}, pprof({("work", "main"): 7}))[0] == 200


def test_memory_is_released_after_the_load(small_server):
    server = small_server
    idle = server.resident_mib()
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda seed: push_until_taken(server, {"service_name": "a"}, hostile(seed)), range(4)))
        list(threads.map(lambda _: ask(server, "SelectMergeStacktraces"), range(4)))
    limit = time.monotonic() + 75
    while server.resident_mib() >= 1.5 * idle:
        kept = {name: server.metric(name) / MIB for name in ("pyrograph_block_cache_bytes", "pyrograph_memory_share_held_bytes")}
        assert time.monotonic() < limit, f"idle {idle:.0f} MiB, after the load {server.resident_mib():.0f}, of it {kept}"
        time.sleep(1)


def group_of_its_own():
    for top, name in GROUPS:
        if (top / "cgroup.procs").exists():
            group = top / f"pyrograph-test-{os.getpid()}"
            try:
                group.mkdir()
            except OSError:
                continue
            if (group / name).exists():
                return group, name
            group.rmdir()
    return None


def test_the_limit_is_that_of_the_control_group(new_server):
    made = group_of_its_own()
    if made is None:
        pytest.skip("no control group can be made here; the parser has tests of its own")
    group, name = made
    server = new_server("-self-profiling.disable-push", start=False)
    try:
        (group / name).write_text(str(LIMIT))
        own = pathlib.Path("/proc/self/cgroup").read_text()
        enter_and_run(server, group)
        assert pathlib.Path("/proc/self/cgroup").read_text() == own
        assert server.metric("pyrograph_memory_limit_bytes") == LIMIT
        for seed in range(4):
            push_until_taken(server, {"service_name": "hostile"}, hostile(seed))
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            for method in ("SelectMergeStacktraces", "SelectMergeProfile"):
                list(threads.map(lambda _: check_answer(ask(server, method)), range(8)))  # noqa: B023
        assert server.process.poll() is None, "killed by the kernel"
    finally:
        if server.process:
            server.kill()
        for _ in range(50):
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.1)


def enter_and_run(server, group):
    """Runs the server as a member of `group`."""
    import harness

    script = pathlib.Path(f"{server.directory}.sh")
    script.write_text(f'#!/bin/sh\necho $$ > {group}/cgroup.procs\nexec {harness.BINARY} "$@"\n')
    script.chmod(0o755)
    binary, harness.BINARY = harness.BINARY, script
    try:
        server.start()
    finally:
        harness.BINARY = binary
