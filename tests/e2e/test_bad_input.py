"""Bad input gets the documented refusal, costs no memory, and does not keep the next good push out."""

import gzip
import json
import os
import socket
import time
import zlib

import pytest
from harness import _field, _varint, now_millis, pprof, push, push_request

GOOD = {("work", "main"): 7}
JSON = {"Content-Type": "application/json"}


def still_serves(server, before):
    assert push(server, {"service_name": "good", "n": str(before)}, pprof(GOOD))[0] == 200
    assert server.total(f'{{service_name="good", n="{before}"}}') == 7


def code(answer):
    status, body = answer
    return status, json.loads(body)["code"]


def bomb(megabytes):
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(1 << 20)
    return b"".join(compressor.compress(zeros) for _ in range(megabytes)) + compressor.flush()


def test_documents_that_are_no_profiles(server):
    whole = pprof({(f"f{i}", "main"): i + 1 for i in range(1000)})
    no_such_location = _field(1, _field(1, 1)) + _field(2, _field(1, _varint(99)) + _field(2, _varint(5)))
    bad = {
        "truncated gzip": whole[: len(whole) // 2],
        "garbage": os.urandom(4096),
        "a gzip bomb": bomb(512),
        "endless varint": b"\xff" * 64,
        "a length past the end": b"\x0a\xff\xff\xff\xff\x07",
        "nothing but a type": no_such_location,
    }
    for name, document in bad.items():
        status, _ = push(server, {"service_name": "bad"}, document)
        assert status in (200, 400), f"push of {name} answered {status}"
        assert name == "nothing but a type" or status == 400, f"push of {name} was accepted"
        status, body = server.post("/ingest?name=bad&format=pprof", document)
        assert status in (200, 422), f"ingest of {name} answered {status}: {body[:200]!r}"
    still_serves(server, 1)
    assert server.resident_mib() < 400


def test_formats_that_come_later_say_what_is_accepted(server):
    status, body = server.post("/ingest?name=app&format=jfr", b"FLR\x00" * 10)
    assert status == 415 and b"pprof" in body


def test_oversized_things(server):
    assert code(push(server, {"service_name": "a", **{f"l{i}": "v" for i in range(10_000)}}, pprof(GOOD))) == (
        400, "invalid_argument",
    )
    assert code(push(server, {"service_name": "a", "l": "v" * 3000}, pprof(GOOD))) == (400, "invalid_argument")
    assert code(push(server, {"service_name": "a", "n" * 2000: "v"}, pprof(GOOD))) == (400, "invalid_argument")
    many = pprof({(f"f{i}", "main"): 1 for i in range(17_000)})
    assert code(push(server, {"service_name": "a"}, many)) == (400, "invalid_argument")
    deep = pprof({tuple(f"f{i}" for i in range(3000)): 1})
    assert push(server, {"service_name": "deep"}, deep)[0] == 200, "deep stacks are cut, not refused"
    still_serves(server, 2)


def test_questions_that_make_no_sense(server):
    ask = lambda **question: code(  # noqa: E731
        server.post("/querier.v1.QuerierService/SelectMergeStacktraces", json.dumps(question).encode(), JSON)
    )
    good = {
        "profileTypeID": "process_cpu:cpu:nanoseconds:cpu:nanoseconds", "labelSelector": "{}",
        "start": now_millis() - 1000, "end": now_millis(),
    }
    for wrong in (
        {"profileTypeID": "cpu"}, {"labelSelector": ""}, {"labelSelector": "{a="}, {"labelSelector": '{a=~"("}'},
        {"start": 0}, {"start": good["end"] + 1}, {"maxNodes": 2_000_000}, {"maxNodes": -1},
        {"labelSelector": '{a=~"' + "(x{1000}){1000}" + '"}'},
    ):
        assert ask(**{**good, **wrong}) == (400, "invalid_argument"), wrong
    assert server.get("/pyroscope/render?query=cpu%7B&from=now-1h")[0] == 400
    still_serves(server, 3)


def test_wrong_tenants(new_server):
    server = new_server("-self-profiling.disable-push", "-auth.multitenancy-enabled")
    for tenant in (None, "a/b", "..", "x" * 151, "a|b"):
        headers = {"X-Scope-OrgID": tenant} if tenant else {}
        assert code(push(server, {"service_name": "a"}, pprof(GOOD), headers=headers)) == (401, "unauthenticated"), tenant
    assert push(server, {"service_name": "a"}, pprof(GOOD), headers={"X-Scope-OrgID": "one"})[0] == 200
    range_ = {"start": now_millis() - 60_000, "end": now_millis() + 60_000}
    seen = server.rpc("querier.v1.QuerierService/ProfileTypes", {"X-Scope-OrgID": "two"}, **range_)
    assert seen == {}, "one tenant sees another's data"
    seen = server.rpc("querier.v1.QuerierService/ProfileTypes", {"X-Scope-OrgID": "one|two"}, **range_)
    assert len(seen["profileTypes"]) == 1


def test_connections_that_never_finish(server):
    """Half-closed, half-sent and idle: 5,000 of them leave memory flat and the server answering."""
    before = server.resident_mib()
    idle = []
    for _ in range(5000):
        s = socket.create_connection(("127.0.0.1", server.port))
        idle.append(s)
    head = b"POST /push.v1.PusherService/Push HTTP/1.1\r\nHost: x\r\nContent-Type: application/proto\r\nContent-Length: 100000\r\n\r\n"
    for s in idle[:200]:
        s.sendall(head + b"x" * 100)
    for s in idle[200:400]:
        s.sendall(b"GET /ready HTTP/1.1\r\nHost: x\r\n")
        s.shutdown(socket.SHUT_WR)
    still_serves(server, 4)
    grown = server.resident_mib() - before
    for s in idle:
        s.close()
    assert grown < 200, f"5,000 idle connections hold {grown:.0f} MiB"
    time.sleep(0.5)
    still_serves(server, 5)


def test_memory_stays_flat_under_much_bad_input(server):
    bad = bomb(64)
    for _ in range(5):
        push(server, {"service_name": "bad"}, bad)
    before = server.resident_mib()
    for _ in range(60):
        push(server, {"service_name": "bad"}, bad)
        server.post("/ingest?name=bad&format=pprof", gzip.compress(os.urandom(1 << 16)))
        push(server, {"service_name": "bad", **{f"l{i}": "v" * 100 for i in range(1000)}}, pprof(GOOD))
    assert server.resident_mib() < before + 64
    still_serves(server, 6)


@pytest.mark.parametrize("path", ["/push.v1.PusherService/Push", "/ingest?name=a"])
def test_a_body_past_the_limit_is_refused_before_it_is_held(new_server, path):
    server = new_server("-self-profiling.disable-push", "-distributor.ingestion-body-limit-mb=1")
    body = push_request({"service_name": "a"}, os.urandom(3 << 20))
    status, _ = server.post(path, body, {"Content-Type": "application/proto"})
    assert status in (400, 413, 429), status
    still_serves(server, 7)
