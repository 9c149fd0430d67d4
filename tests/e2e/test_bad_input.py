"""Bad input gets the documented refusal, costs no memory, and does not block the next good push."""

import gzip
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
import zlib

import pytest
from harness import BINARY, _field, _varint, now_millis, pprof, push, push_request

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


def test_documents_that_are_not_profiles_are_refused(server):
    whole = pprof({(f"f{i}", "main"): i + 1 for i in range(1000)})
    no_such_location = _field(1, _field(1, 1)) + _field(2, _field(1, _varint(99)) + _field(2, _varint(5)))
    bad = {
        "truncated gzip": whole[: len(whole) // 2],
        "garbage": os.urandom(4096),
        "a gzip bomb": bomb(512),
        "endless varint": b"\xff" * 64,
        "a length past the end": b"\x0a\xff\xff\xff\xff\x07",
        "nothing but a sample of an unknown location": no_such_location,
    }
    for name, document in bad.items():
        status, _ = push(server, {"service_name": "bad"}, document)
        assert status == 400, f"push of {name} answered {status}"
        status, body = server.post("/ingest?name=bad&format=pprof", document)
        assert status == 422, f"ingest of {name} answered {status}: {body[:200]!r}"
    still_serves(server, 1)
    assert server.resident_mib() < 400


def test_unsupported_formats_are_refused_with_the_accepted_ones(server):
    status, body = server.post("/ingest?name=app&format=speedscope", b"{}")
    assert status == 415 and b"pprof, jfr" in body


def test_damaged_recordings_are_refused_with_their_place(server):
    status, body = server.post("/ingest?name=app&format=jfr", b"FLR\x00" * 10)
    assert status == 422 and b"JFR recording: chunk 0, byte 0: version" in body, body
    status, body = server.post("/ingest?name=app&format=jfr", b"\x01\xff" * 2048)
    assert status == 422 and b"no chunk begins here" in body, body


def test_oversized_profiles_are_refused_or_cut(server):
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


def test_invalid_queries_are_refused(server):
    ask = lambda **query: code(  # noqa: E731
        server.post("/querier.v1.QuerierService/SelectMergeStacktraces", json.dumps(query).encode(), JSON)
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


def test_invalid_tenants_are_refused_and_tenants_are_separate(new_server):
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


def test_unfinished_connections_hold_little_memory(server):
    """5,000 half-closed, half-sent and idle connections leave memory flat and the server answering."""
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


# --- no success without storing

WORDS = {"Content-Type": "text/plain"}
DAY_SECS = 86_400


def ingest(server, body, query="name=quiet.cpu", headers=None):
    """(status, headers, message) of a post to /ingest without the content type that urllib would add."""
    request = urllib.request.Request(
        f"{server.url}/ingest?{query}", data=body, headers={**WORDS, **(headers or {})}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.headers, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, json.loads(error.read())["message"]


def document(sample_types=(("cpu", "nanoseconds"),), samples=(), mapping=0, time_nanos=None, period=("cpu", "nanoseconds")):
    """A pprof, possibly invalid. A sample is (locations, values, labels); locations 1 and 2 are known, 3 is empty."""
    strings = [""]

    def text(value):
        if value not in strings:
            strings.append(value)
        return strings.index(value)

    out = b"".join(_field(1, _field(1, text(t)) + _field(2, text(u))) for t, u in sample_types)
    for locations, values, labels in samples:
        sample = _field(1, b"".join(_varint(location) for location in locations))
        sample += _field(2, b"".join(_varint(value % 2**64) for value in values))
        sample += b"".join(_field(3, _field(1, text(k)) + _field(2, text(v))) for k, v in labels)
        out += _field(2, sample)
    for location, function in ((1, 1), (2, 2)):
        out += _field(4, _field(1, location) + (_field(2, mapping) if mapping else b"") + _field(4, _field(1, function)))
    out += _field(4, _field(1, 3))
    for function, name in ((1, "main"), (2, "work")):
        out += _field(5, _field(1, function) + _field(2, text(name)))
    out += _field(9, time_nanos or time.time_ns()) + _field(11, _field(1, text(period[0])) + _field(2, text(period[1])))
    return out + b"".join(_field(6, s if isinstance(s, bytes) else s.encode()) for s in strings)


def one(value=5, labels=(), locations=(2, 1)):
    return (locations, (value,), labels)


def push_command(server, directory, content, *flags):
    """Runs `pyrograph push` on a file with this content."""
    file = directory / "pushed"
    file.write_bytes(content)
    command = [BINARY, "push", f"--url={server.url}", *flags, file]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def visible(server, service):
    return server.total(f'{{service_name="{service}"}}')


def test_compressed_bodies_are_read_with_and_without_a_header(server):
    text, profile = b"main;work 3\nmain;idle 1\n", pprof(GOOD)
    raw = zlib.compressobj(9, zlib.DEFLATED, -15)
    encoded = {
        "gzip": gzip.compress(text), "deflate": zlib.compress(text), "raw": raw.compress(text) + raw.flush(),
    }
    cases = [
        ("plain", text, {}), ("gzip", encoded["gzip"], {}), ("gziph", encoded["gzip"], {"Content-Encoding": "gzip"}),
        ("zlib", encoded["deflate"], {}), ("zlibh", encoded["deflate"], {"Content-Encoding": "deflate"}),
        ("deflate", encoded["raw"], {"Content-Encoding": "deflate"}), ("twice", gzip.compress(encoded["gzip"]), {"Content-Encoding": "gzip"}),
    ]
    for service, body, headers in cases:
        status, answer, words = ingest(server, body, f"name={service}.cpu&sampleRate=0", headers)
        assert (status, answer["X-Pyrograph-Stored-Samples"]) == (200, "2"), (service, words)
        assert visible_as(server, service, "process_cpu:samples:count::") == 4, service
    # A pprof without a format is recognised, gzipped or not; a whole form may be compressed.
    for service, body in (("bare", gzip.decompress(profile)), ("zipped", profile)):
        assert ingest(server, body, f"name={service}")[0] == 200
        assert visible(server, service) == 7, service
    form = b'--x\r\nContent-Disposition: form-data; name="profile"; filename="p"\r\n\r\n' + profile + b"\r\n--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x", "Content-Encoding": "gzip"}
    assert ingest(server, gzip.compress(form), "name=form", headers)[0] == 200
    assert visible(server, "form") == 7
    for query in ("name=a", "name=a&format=pprof", "name=a&format=lines", "name=a&format=tree"):
        status, _, words = ingest(server, bomb(64), query)
        assert status == 422 and "expand to more than the limit" in words, (query, words)
    status, _, words = ingest(server, text, "name=a", {"Content-Encoding": "br"})
    assert status == 415 and '"br" is not accepted' in words


def visible_as(server, service, profile_type):
    answer = server.rpc(
        "querier.v1.QuerierService/SelectMergeStacktraces", profileTypeID=profile_type,
        labelSelector=f'{{service_name="{service}"}}', start=now_millis() - 3_600_000, end=now_millis() + 60_000,
    )
    return int(answer["flamegraph"]["total"])


def test_unknown_text_is_refused_and_left_out_lines_are_counted(server):
    assert ingest(server, b"main;work\t3\nmain;idle\t1\n", "name=tab.cpu&sampleRate=0")[0] == 200
    assert visible_as(server, "tab", "process_cpu:samples:count::") == 4
    refused = {
        b"main;work\nmain;idle\n": "none of 2 lines ends in a space and a count",
        b"<html><body>502</body></html>\n": "an HTML page",
        b"main;caf\xe9 3\n": 'line 1 has a frame that is not UTF-8: "caf\\xe9"',
        b"heap profile: 1: 2 [3: 4] @ heap/1048576\n": "fetch it without debug=1",
        b"a 9999999999999\n": "more than 2^63 - 1 ns",
        b"main -4\n": "1 with a negative value",
    }
    for body, expected in refused.items():
        status, _, words = ingest(server, body)
        assert status in (400, 422) and expected in words, (body, status, words)
    # `curl -d @file` removes the line ends.
    joined = {"Content-Type": "application/x-www-form-urlencoded"}
    status, _, words = ingest(server, b"a;b 3c;d 1", headers=joined)
    assert status == 422 and "--data-binary" in words
    assert ingest(server, b"a;b 3", headers=joined)[0] == 200
    # Lines that are left out beside stored ones are in the answer and in the metric.
    before = server.metric("pyrograph_distributor_discarded_samples_total")
    status, answer, _ = ingest(server, b"main;work 3\nno-count\nmain;idle -1\n", "name=partly.cpu&sampleRate=0")
    assert (status, answer["X-Pyrograph-Stored-Samples"]) == (200, "1")
    assert answer["X-Pyrograph-Discarded-Samples"] == "negative_value=1, line_without_count=1"
    assert server.metric("pyrograph_distributor_discarded_samples_total") == before + 2
    for nothing in (b"", b"\n \n"):
        status, answer, _ = ingest(server, nothing)
        assert (status, answer["X-Pyrograph-Stored-Samples"]) == (200, "0"), "an idle program has nothing to say"


def test_pprofs_without_valid_samples_are_refused(server):
    push_to = lambda body, service: push(server, {"service_name": service}, body)  # noqa: E731
    refused = {
        "colon in the type": (document([("a:b", "c")], [one()]), "sample type"),
        "colon in the unit": (document([("a", "b:c")], [one()]), "sample unit"),
        "colon in the period": (document(samples=[one()], period=("a:b", "c")), "period type"),
        "unknown location": (document(samples=[one(locations=(9,))]), "1 with a location that is unknown or empty"),
        "empty location": (document(samples=[one(locations=(3, 1))]), "1 with a location that is unknown or empty"),
        "negative": (document(samples=[one(-5), one(0)]), "1 with a negative value"),
        "difference": (document(samples=[one(9), one(-5, [("pprof::base", "true")])]), "pprof::base"),
        "end of time": (document(samples=[one()], time_nanos=2**63 - 1), "limit is"),
        "sums": (document(samples=[one(2**63 - 1), one(2**63 - 1)]), "more than 2^63 - 1"),
        "not UTF-8": (document(samples=[one(1, [("digest", b"a\xff")])]), 'value of sample label "digest" is not UTF-8: "a\\xff"'),
        "HTML": (b"<!DOCTYPE html><html>", "an HTML page"),
        "text": (b"main;work 3\n", "folded text"),
    }
    for name, (body, expected) in refused.items():
        status, answer = push_to(body, "refused")
        words = json.loads(answer)["message"]
        assert status == 400 and expected in words, (name, status, words)
        status, _, words = ingest(server, body, "name=refused&format=pprof")
        assert status == 422 and expected in words, (name, status, words)
    status, answer = push(server, {"service_name": "refused", "__name__": "my:cpu"}, pprof(GOOD))
    assert status == 400 and "my:cpu" in json.loads(answer)["message"]
    # Good samples are kept, bad ones are counted; a missing mapping does no harm.
    some = document(samples=[one(5), one(7, locations=(9,)), one(-3)], mapping=77)
    status, answer, _ = ingest(server, some, "name=some&format=pprof")
    assert (status, answer["X-Pyrograph-Stored-Samples"]) == (200, "1")
    assert answer["X-Pyrograph-Discarded-Samples"] == "negative_value=1, unknown_location=1"
    assert visible(server, "some") == 5
    # A profile of zeros is valid.
    assert push_to(document(samples=[one(0)]), "idle")[0] == 200
    # The last value of a repeated label counts, in any order of the strings.
    for first in ("1", "2"):
        body = document([("cpu", "nanoseconds")], [one(1, [("order", first), ("task", "1"), ("task", "2")])])
        assert push_to(body, "twice")[0] == 200
    values = server.rpc(
        "querier.v1.QuerierService/LabelValues", name="task", matchers=['{service_name="twice"}'],
        start=now_millis() - 60_000, end=now_millis() + 60_000,
    )
    assert values["names"] == ["2"]


def test_forms_without_a_profile_are_refused(server):
    head = {"Content-Type": "multipart/form-data; boundary=x"}
    part = '--x\r\nContent-Disposition: form-data; name="{}"{}\r\n\r\n{}\r\n--x--\r\n'
    for name, file, expected in (("profil", '; filename="p"', 'file "profil"'), ("profile", "", 'field "profile"')):
        status, _, words = ingest(server, part.format(name, file, "x").encode(), "name=form", head)
        assert status == 422 and expected in words, words
    assert ingest(server, part.format("profile", '; filename="p"', "").encode(), "name=form", head)[0] == 200


def test_profiles_past_their_retention_are_refused(new_server, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text('limits:\n  retention_by_service:\n  - {service: "short-.*", period: 1d}\n  - {service: audit, period: 0}\n')
    server = new_server("-self-profiling.disable-push", "-validation.reject-older-than=0", f"-config.file={config}")
    at = lambda days: int(time.time() - days * DAY_SECS)  # noqa: E731
    text = b"main;work 3\n"
    for service, days, setting in (("app", 32, "retention_period"), ("short-1", 2, "retention_by_service")):
        status, _, words = ingest(server, text, f"name={service}.cpu&from={at(days)}")
        assert status == 400 and setting in words and "older than its service is kept" in words, words
        old = document(samples=[one()], time_nanos=at(days) * 10**9)
        status, answer = push(server, {"service_name": service}, old)
        assert status == 400 and setting in json.loads(answer)["message"]
        assert ingest(server, text, f"name={service}.cpu&from={at(days / 4)}")[0] == 200
    assert ingest(server, text, f"name=audit.cpu&from={at(400)}")[0] == 200
    pushed = push_command(server, tmp_path, text, "--service=app", f"--at={at(32)}")
    assert pushed.returncode != 0 and "older than its service is kept" in pushed.stderr


def test_series_of_a_tenant_are_limited(new_server):
    server = new_server("-self-profiling.disable-push", "-ingester.max-global-series-per-tenant=3")
    for pod in "abc":
        assert push(server, {"service_name": "app", "pod": pod}, pprof(GOOD))[0] == 200
    status, answer = push(server, {"service_name": "app", "pod": "d"}, pprof(GOOD))
    assert status == 400 and "limit of 3 (max_global_series_per_tenant)" in json.loads(answer)["message"]
    assert push(server, {"service_name": "app", "pod": "a"}, pprof(GOOD))[0] == 200, "known series go on"


def test_the_command_line_reports_when_no_sample_was_stored(server, tmp_path):
    run = lambda content, *flags: push_command(server, tmp_path, content, *flags)  # noqa: E731
    for content, flags, expected in (
        (b"", (), "is empty"), (b"\n\n", (), "nothing was stored"), (b"main;work\n", (), "none of 1 lines"),
        (pprof({("main",): 0}), (), "nothing was stored"), (b"main 1\n", ("--label=a=b,c=d",), "has a value with ','"),
        (b"main 1\n", ("--label=noequals",), "has no value"),
    ):
        pushed = run(content, *flags)
        assert pushed.returncode != 0 and expected in pushed.stderr, (content, pushed.stderr)
    for service, content in (("blank", b"\nmain;work 12\n"), ("gz", gzip.compress(b"main;work 12\n")), ("pb", pprof(GOOD))):
        pushed = run(content, f"--service=cli-{service}")
        assert pushed.returncode == 0, pushed.stderr
        assert visible(server, f"cli-{service}") > 0
    pushed = run(b"main;work 12\nno-count\n", "--service=cli-part")
    assert pushed.returncode == 0 and "line_without_count=1" in pushed.stderr


def test_a_matcher_with_many_alternatives_is_answered(server):
    names = [f"pod-{i:05}" for i in range(4000)]
    push(server, {"service_name": "many", "pod": names[3999]}, pprof(GOOD))
    for alternatives in ("|".join(names), "(" + "|".join(names) + ")"):
        assert server.total(f'{{service_name="many", pod=~"{alternatives}"}}') == 7
    wrong = "|".join(names) + "|("
    status, answer = server.post(
        "/querier.v1.QuerierService/LabelNames",
        json.dumps({"matchers": [f'{{pod=~"{wrong}"}}'], "start": 1, "end": 2}).encode(), JSON,
    )
    assert status == 400 and len(answer) < 1000
