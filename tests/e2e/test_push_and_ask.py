"""A profile is pushed through each interface of the server, and queried as a flame graph."""

import json
import time
import urllib.parse

from harness import CPU, now_millis, pprof, push

STACKS = {("foo", "main"): 30, ("bar", "main"): 10, ("main",): 2}
EXPECTED = {(): (42, 0), ("main",): (42, 2), ("main", "foo"): (30, 30), ("main", "bar"): (10, 10)}


def test_a_push_is_in_the_next_answer(server):
    assert push(server, {"service_name": "app", "pod": "a"}, pprof(STACKS)) == (200, b"")
    assert server.flamegraph('{service_name="app"}') == EXPECTED
    assert server.flamegraph('{service_name="app", pod="b"}') == {(): (0, 0)}


def test_ingest_takes_raw_and_multipart_pprof(server):
    document = pprof(STACKS)
    assert server.post("/ingest?name=raw&format=pprof", document)[0] == 200
    boundary = b"x" * 24
    multipart = (
        b"--" + boundary + b'\r\nContent-Disposition: form-data; name="profile"; filename="profile.pprof"\r\n\r\n'
        + document + b"\r\n--" + boundary + b"--\r\n"
    )
    headers = {"Content-Type": "multipart/form-data; boundary=" + boundary.decode()}
    assert server.post("/ingest?name=multi%7Benv%3Ddev%7D&spyName=gospy", multipart, headers)[0] == 200
    assert server.flamegraph('{service_name="raw"}') == EXPECTED
    assert server.flamegraph('{service_name="multi", env="dev", pyroscope_spy="gospy"}') == EXPECTED


def test_curl_can_push_folded_stacks(server):
    status, _ = server.post("/ingest?name=app.cpu&sampleRate=100&from=now-10s&until=now", b"main;foo 3\nmain;bar 1\n")
    assert status == 200
    graph = server.flamegraph('{service_name="app"}')
    assert graph[("main", "foo")] == (30_000_000, 30_000_000)
    assert graph[()] == (40_000_000, 0)


def test_an_identical_push_counts_once_and_a_different_one_counts(server):
    document, other = pprof(STACKS, time_nanos=time.time_ns()), None
    for _ in range(3):
        assert push(server, {"service_name": "app"}, document)[0] == 200
    assert server.total('{service_name="app"}') == 42
    other = pprof({("foo", "main"): 1}, time_nanos=time.time_ns())
    assert push(server, {"service_name": "app"}, other)[0] == 200
    assert server.total('{service_name="app"}') == 43


def test_profiles_survive_a_restart(server):
    push(server, {"service_name": "app"}, pprof(STACKS))
    assert server.stop() == 0
    seconds = server.start()
    assert server.flamegraph('{service_name="app"}') == EXPECTED
    print(f"ready after {seconds:.2f} s")


def test_a_second_process_on_the_same_directory_is_refused(server, new_server):
    second = new_server(f"-storage.filesystem.dir={server.directory}", start=False)
    try:
        second.start()
        raise AssertionError("two processes share one directory")
    except RuntimeError as error:
        assert str(server.process.pid) in str(error)


def test_render_and_labels_speak_the_same_query_as_the_page(server):
    push(server, {"service_name": "app"}, pprof(STACKS))
    query = urllib.parse.quote(CPU + '{service_name="app"}')
    status, body = server.get(f"/pyroscope/render?query={query}&from=now-1h&until=now%2B1m")
    assert status == 200
    render = json.loads(body)
    assert render["flamebearer"]["numTicks"] == 42
    assert render["metadata"]["name"] == "cpu"
    names = server.rpc(
        "querier.v1.QuerierService/LabelNames", start=now_millis() - 60_000, end=now_millis() + 60_000, matchers=["{}"]
    )["names"]
    assert {"service_name", "__profile_type__", "__service_name__"} <= set(names)
    apps = json.loads(server.get("/api/apps")[1])
    assert [app["name"] for app in apps] == ["app"]
