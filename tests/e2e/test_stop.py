"""SIGTERM under load: the process ends soon, and every acknowledged profile is stored."""

import http.client
import pathlib
import signal
import socket
import threading
import time

from harness import CPU, free_port, pprof, push_request

WRITERS = 16
LOAD_SECONDS = 2
# A drain waits for the pushes in flight, one flush and one commit, not for a fixed time.
STOP_SECONDS_MAX = 8


class Load:
    """Writers that push profiles, each with a distinct function, until the server is gone."""

    def __init__(self, port):
        self.port, self.acknowledged, self.refused, self.lock = port, {}, set(), threading.Lock()
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.write, args=(i,)) for i in range(WRITERS)]
        for thread in self.threads:
            thread.start()

    def write(self, writer):
        connection, number = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20), 0
        while not self.stop.is_set():
            number += 1
            name, value = f"f{writer}x{number}", writer * 100_000 + number
            labels = {"__name__": "process_cpu", "service_name": f"app{writer % 3}"}
            body = push_request(labels, pprof({(name, "main"): value}, time_nanos=time.time_ns()))
            try:
                connection.request("POST", "/push.v1.PusherService/Push", body, {"Content-Type": "application/proto"})
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException):
                return
            with self.lock:
                if response.status == 200:
                    self.acknowledged[name] = value
                else:
                    self.refused.add(response.status)
            if response.getheader("connection") == "close":
                connection.close()

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join()


def test_sigterm_under_load_ends_soon_and_loses_nothing(new_server):
    server = new_server("-self-profiling.disable-push")
    load = Load(server.port)
    time.sleep(LOAD_SECONDS)
    began = time.monotonic()
    code = server.stop()
    took = time.monotonic() - began
    load.end()
    assert code == 0, server.log()[-2000:]
    assert took < STOP_SECONDS_MAX, f"the drain took {took:.1f} s"
    assert load.refused <= {503}, f"refusals while stopping must be worth a retry: {load.refused}"
    assert "drained" in server.log()
    logs = [log for log in (pathlib.Path(server.directory) / "log").iterdir() if log.is_dir()]
    unsealed = [str(log) for log in logs if not max(log.iterdir()).read_bytes().startswith(b"PYGSEAL")]
    assert logs and not unsealed, f"left without a seal: {unsealed}"
    half_written = [str(path) for path in pathlib.Path(server.directory).rglob("*") if "tmp" in path.suffix or "#" in path.name]
    assert not half_written, half_written

    server.start()
    graph = server.flamegraph("{}", CPU, maxNodes=1_000_000)
    counted = {path[-1]: own for path, (_, own) in graph.items() if path and own}
    lost = {name for name, value in load.acknowledged.items() if counted.get(name) != value}
    assert len(load.acknowledged) > WRITERS, "the load was too small to show anything"
    assert not lost, f"{len(lost)} of {len(load.acknowledged)} acknowledged profiles are lost or changed: {sorted(lost)[:5]}"
    print(f"{len(load.acknowledged)} acknowledged; stopped in {took:.2f} s")


STRANGERS = {
    "silence": b"",
    "half a request head": b"POST /push.v1.PusherService/Push HTTP/1.1\r\nHost: x\r\n",
    "a body that never comes": b"POST /push.v1.PusherService/Push HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
    "HTTP/2 without a request": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0",
}


def test_foreign_connections_do_not_delay_the_stop(new_server):
    # A cluster of one: with gossip, the listener between roles is open too.
    between, gossip = free_port(), free_port()
    server = new_server(
        "-self-profiling.disable-push",
        f"-memberlist.join=127.0.0.1:{gossip}",
        "-memberlist.bind-addr=127.0.0.1",
        f"-memberlist.bind-port={gossip}",
        "-server.grpc-listen-address=127.0.0.1",
        f"-server.grpc-listen-port={between}",
    )
    strangers = []
    for sent in STRANGERS.values():
        strangers.append(socket.create_connection(("127.0.0.1", server.port)))
        strangers[-1].sendall(sent)
    for sent in [b"", b"GET"]:
        strangers.append(socket.create_connection(("127.0.0.1", between)))
        strangers[-1].sendall(sent)
    time.sleep(0.2)
    began = time.monotonic()
    assert server.stop() == 0
    took = time.monotonic() - began
    assert took < STOP_SECONDS_MAX, f"the drain took {took:.1f} s, of 30 s that it may take"
    assert "still in flight" not in server.log()
    print(f"stopped in {took:.2f} s")
    for stranger in strangers:
        stranger.close()


def test_other_signals_do_not_stop_the_server(new_server, tmp_path):
    limits = tmp_path / "limits.yaml"
    limits.write_text("overrides: {}\n")
    server = new_server(
        "-self-profiling.disable-push", f"-runtime-config.file={limits}", "-runtime-config.reload-period=1h"
    )
    limits.write_text("overrides: {a: {retention_period: 1d}}\n")
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        server.process.send_signal(number)
    until = time.monotonic() + 20
    while "limits of tenants have changed" not in server.log():
        assert time.monotonic() < until, server.log()[-2000:]
        time.sleep(0.1)
    assert server.get("/ready")[0] == 200
    server.process.send_signal(signal.SIGQUIT)
    assert server.process.wait(timeout=40) == 0
    assert "drained" in server.log()
