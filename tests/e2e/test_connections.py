"""Too many connections, and unusual HTTP requests."""

import http.client
import socket

OPEN_FILES_SOFT, OPEN_FILES_HARD = 64, 128


def test_idle_connections_do_not_exhaust_descriptors(new_server):
    server = new_server("-self-profiling.disable-push", start=False)
    server.open_files = (OPEN_FILES_SOFT, OPEN_FILES_HARD)
    server.start()
    assert server.metric("process_max_fds") == OPEN_FILES_HARD, "the soft limit is raised to the hard one"
    idle = []
    for _ in range(3 * OPEN_FILES_HARD):
        idle.append(socket.create_connection(("127.0.0.1", server.port)))
        if len(idle) % 32 == 0:
            assert server.get("/ready")[0] == 200
    assert server.metric("process_open_fds") < OPEN_FILES_HARD
    assert server.log().count("cannot accept") <= 1
    for connection in idle:
        connection.close()


def test_head_is_answered_like_get(new_server):
    server = new_server("-self-profiling.disable-push")
    for path in ["/ready", "/metrics", "/api/v1/status/buildinfo"]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("HEAD", path)
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b""), path
        assert int(response.getheader("content-length")) > 0, path
