"""A real server process, and a small client for it. Uses Python's standard library only."""

import gzip
import json
import os
import pathlib
import random
import resource
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHARED = pathlib.Path(os.environ.get("PYROGRAPH_SHARED", ROOT.parent / "shared"))
BINARY = pathlib.Path(
    os.environ.get("PYROGRAPH_BINARY", pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug/pyrograph")
)
CPU = "process_cpu:cpu:nanoseconds:cpu:nanoseconds"


def free_port(low=10_000, high=32_000):
    """A free port outside of the system's range for outgoing connections, which could take it while a server restarts."""
    while not is_free(port := random.randrange(low, high)):
        pass
    return port


def is_free(port):
    with socket.socket() as s:
        # Like servers: connections that have just ended do not count.
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
            return True
        except OSError:
            return False


def wait_for(condition, patience=30):
    """Waits for a true value of `condition()`, and returns it."""
    until = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < until, f"not within {patience} s"
        time.sleep(0.1)
    return found


class Server:
    """One `pyrograph server` on a directory. Can be restarted with the same port and directory."""

    def __init__(self, directory, *flags):
        self.directory, self.flags, self.port = directory, flags, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process, self.env = None, {}
        self.open_files = None  # soft and hard limit; None: inherited
        # A file for stderr instead of the log, and a user instead of the current one; None: the default.
        self.stderr, self.user = None, None

    def start(self):
        """Starts the process; returns the seconds until it was ready."""
        log = open(f"{self.directory}.log", "ab")
        started = time.monotonic()
        self.process = subprocess.Popen(
            [
                BINARY,
                "server",
                f"-server.http-listen-port={self.port}",
                "-server.http-listen-address=127.0.0.1",
                f"-storage.filesystem.dir={self.directory}",
                *self.flags,
            ],
            stdout=log,
            stderr=log if self.stderr is None else self.stderr,
            user=self.user,
            env={**os.environ, **self.env},
            preexec_fn=self.open_files and (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, self.open_files)),
        )
        while time.monotonic() - started < 30:
            if self.process.poll() is not None:
                raise RuntimeError(f"server exited with {self.process.returncode}: {self.log()[-3000:]}")
            try:
                if self.get("/ready")[0] == 200:
                    return time.monotonic() - started
            except OSError:
                pass
            time.sleep(0.01)
        raise RuntimeError(f"server not ready within 30 s: {self.log()[-3000:]}")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        """Sends SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def log(self):
        return pathlib.Path(f"{self.directory}.log").read_text(errors="replace")

    def metric(self, name):
        """The sum of all series of this metric."""
        lines = self.get("/metrics")[1].decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    def resident_mib(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))

    # --- requests

    def request(self, method, path, body=None, headers=None, timeout=30):
        """(status, body) of one request; error statuses are answers, not exceptions."""
        request = urllib.request.Request(self.url + path, data=body, headers=headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def get(self, path, headers=None):
        return self.request("GET", path, headers=headers)

    def post(self, path, body, headers=None):
        return self.request("POST", path, body, headers)

    def rpc(self, method, headers=None, **request):
        """One Connect call in JSON; `method` as in `querier.v1.QuerierService/Series`."""
        headers = {"Content-Type": "application/json", **(headers or {})}
        status, body = self.post("/" + method, json.dumps(request).encode(), headers)
        assert status == 200, f"{method} answered {status}: {body[:500]!r}"
        return json.loads(body)

    def flamegraph(self, selector, profile_type=CPU, start=None, end=None, **more):
        """{path of names from the root: (total, self)}."""
        answer = self.rpc(
            "querier.v1.QuerierService/SelectMergeStacktraces",
            profileTypeID=profile_type,
            labelSelector=selector,
            start=start or now_millis() - 3_600_000,
            end=end or now_millis() + 60_000,
            **more,
        )
        return paths(answer["flamegraph"])

    def total(self, selector, profile_type=CPU, **more):
        return self.flamegraph(selector, profile_type, **more)[()][0]


def paths(flamegraph):
    """The levels of a flame graph as {path: (total, self)}; the root is ()."""
    names = flamegraph["names"]
    found, above = {}, []
    for depth, level in enumerate(flamegraph["levels"]):
        values = [int(v) for v in level["values"]]
        here, x = [], 0
        for i in range(0, len(values), 4):
            offset, total, own, name = values[i : i + 4]
            x += offset
            parent = () if depth == 0 else next(p for (a, b, p) in above if a <= x < b or (a == b == x))
            path = () if depth == 0 else parent + (names[name],)
            here.append((x, x + total, path))
            old = found.get(path, (0, 0))
            found[path] = (old[0] + total, old[1] + own)
            x += total
        above = here
    return found


def now_millis():
    return time.time_ns() // 1_000_000


# --- making profiles


def _varint(n):
    n &= (1 << 64) - 1
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def _field(number, value):
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def pprof(stacks, time_nanos=None, sample_type=("cpu", "nanoseconds"), period=10_000_000, compress=True):
    """A pprof document of {("leaf", …, "root"): value}."""
    strings = [""]

    def string(text):
        if text not in strings:
            strings.append(text)
        return strings.index(text)

    value_type = _field(1, string(sample_type[0])) + _field(2, string(sample_type[1]))
    functions = {}
    samples = b""
    for stack, value in stacks.items():
        ids = [functions.setdefault(name, len(functions) + 1) for name in stack]
        samples += _field(2, _field(1, b"".join(map(_varint, ids))) + _field(2, _varint(value)))
    body = _field(1, value_type) + samples + _field(3, _field(1, 1) + _field(7, 1))
    for name, i in functions.items():
        body += _field(4, _field(1, i) + _field(2, 1) + _field(4, _field(1, i)))
        body += _field(5, _field(1, i) + _field(2, string(name)))
    body += b"".join(_field(6, s.encode()) for s in strings)
    body += _field(9, time_nanos or time.time_ns()) + _field(10, 10**10) + _field(11, value_type) + _field(12, period)
    return gzip.compress(body, 1) if compress else body


def push_request(labels, *profiles):
    """A push.v1.PushRequest of one series in protobuf."""
    pairs = b"".join(_field(1, _field(1, k.encode()) + _field(2, v.encode())) for k, v in labels.items())
    return _field(1, pairs + b"".join(_field(2, _field(1, p)) for p in profiles))


def push(server, labels, *profiles, headers=None):
    """(status, body) of PusherService/Push."""
    labels = {"__name__": "process_cpu", **labels}
    headers = {"Content-Type": "application/proto", **(headers or {})}
    return server.post("/push.v1.PusherService/Push", push_request(labels, *profiles), headers)
