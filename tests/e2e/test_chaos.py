"""A cluster of real processes is hurt in every way while it is written to and asked; then everything is counted.

`make chaos` hurts it for longer and in more ways than `make test` does.
"""

import http.client
import itertools
import json
import os
import signal
import threading
import time

import pytest
import seaweed
from harness import CPU, free_port, now_millis, paths, pprof, push_request

REPLICAS = {"distributor": 2, "ingester": 3, "metastore": 2, "compactor": 2, "querier": 2}
WRITERS = 6
# Whoever is killed comes back this much later, as a container does.
RESTART = 1.0
# Acknowledged so long ago, a push is in every answer that is not flagged.
VISIBLE = 25.0
LONG = os.environ.get("PYROGRAPH_CHAOS") == "long"
SWEEP_GRACE = 20


class Cluster:
    """Its processes by name, `<role>-<number>`."""

    def __init__(self, new_server, proxy):
        self.new_server, self.proxy, self.servers = new_server, proxy, {}
        self.seeds = [free_port() for _ in range(2)]
        self.retired = []

    def add(self, role, number):
        gossip = self.seeds[number] if role == "metastore" and number < 2 else free_port()
        server = self.new_server(
            f"-target={role}",
            "-server.grpc-listen-address=127.0.0.1",
            f"-server.grpc-listen-port={free_port()}",
            "-memberlist.bind-addr=127.0.0.1",
            f"-memberlist.bind-port={gossip}",
            f"-memberlist.join={','.join(f'127.0.0.1:{port}' for port in self.seeds)}",
            f"-metastore.sweep-grace={SWEEP_GRACE}s",
            "-metastore.retention-interval=5s",
            "-metastore.reconcile-interval=10s",
            "-metastore.orphan-grace=60s",
            "-metastore.merge-after=3s",
            "-metastore.attempt-time=20s",
            "-self-profiling.disable-push",
            *seaweed.flags(self.proxy.port),
            start=False,
        )
        self.servers[f"{role}-{number}"] = server
        return server

    def start(self):
        for role, count in REPLICAS.items():
            for number in range(count):
                self.add(role, number)
        starts = [threading.Thread(target=server.start) for server in self.servers.values()]
        for start in starts:
            start.start()
        for start in starts:
            start.join()
        assert all(server.process.poll() is None for server in self.servers.values())

    def of(self, role):
        return [server for name, server in self.servers.items() if name.startswith(role)]

    def restart(self, name, signal_=signal.SIGKILL):
        server = self.servers[name]
        server.process.send_signal(signal_)
        code = server.process.wait(timeout=60)
        if signal_ == signal.SIGTERM:
            assert code == 0, f"{name} drained with {code}: {server.log()[-3000:]}"
        time.sleep(RESTART)
        server.start()

    def metric(self, role, name):
        """The sum over the processes of a role."""
        total = 0.0
        for server in self.of(role):
            for line in server.get("/metrics")[1].decode().splitlines():
                if line.split("{")[0].split(" ")[0] == name:
                    total += float(line.rsplit(" ", 1)[1])
        return total


class Load:
    """Writers that send until acknowledged, each profile with a function of its own, and readers that check."""

    def __init__(self, cluster):
        self.cluster, self.stop, self.lock = cluster, threading.Event(), threading.Lock()
        self.numbers = itertools.count(1)
        self.sent, self.acknowledged, self.wrong = {}, {}, []
        self.answers = {"good": 0, "flagged": 0, "refused": 0}
        self.last_push = self.last_answer = time.monotonic()
        self.threads = [threading.Thread(target=self.write, args=(seed,)) for seed in range(WRITERS)]
        self.threads += [threading.Thread(target=self.ask, args=(seed,)) for seed in range(2)]
        for thread in self.threads:
            thread.start()

    def write(self, seed):
        turn = seed
        while not self.stop.is_set():
            number = next(self.numbers)
            document = pprof({(f"f{number}", "main"): number}, time_nanos=time.time_ns())
            labels = {"__name__": "process_cpu", "service_name": f"app{number % 3}", "pod": f"p{number % 7}"}
            body = push_request(labels, document)
            self.sent[f"f{number}"] = number
            # A client sends again what it saw no reply for, to whichever distributor is next.
            for _ in range(100):
                turn += 1
                servers = self.cluster.of("distributor")
                if self.send(servers[turn % len(servers)], body):
                    with self.lock:
                        self.acknowledged[f"f{number}"] = time.monotonic()
                        self.last_push = time.monotonic()
                    break
                if self.stop.wait(0.3):
                    return
            self.stop.wait(0.02)

    def send(self, server, body):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=15)
        try:
            connection.request("POST", "/push.v1.PusherService/Push", body, {"Content-Type": "application/proto"})
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def ask(self, seed):
        turn = seed
        while not self.stop.wait(0.5):
            turn += 1
            servers = self.cluster.of("querier")
            self.check(servers[turn % len(servers)])

    def check(self, server):
        """One answer; what it lacks or counts twice without saying so is wrong."""
        began = time.monotonic()
        with self.lock:
            due = {name for name, at in self.acknowledged.items() if at < began - VISIBLE}
        try:
            counted, flag = graph(server)
        except (OSError, http.client.HTTPException, RuntimeError):
            self.answers["refused"] += 1
            return
        doubled = {name: value for name, value in counted.items() if value != self.sent.get(name)}
        lost = due - counted.keys() if not flag else set()
        self.answers["flagged" if flag else "good"] += 1
        if doubled or lost:
            self.wrong.append((time.strftime("%H:%M:%S"), server.port, len(lost), sorted(lost)[:5], sorted(doubled.items())[:5]))
        if not flag:
            self.last_answer = time.monotonic()

    def recovery(self, since, patience=90):
        """Seconds from `since` until a push that began later is acknowledged and a question is answered whole."""
        while min(self.last_push, self.last_answer) <= since:
            assert time.monotonic() < since + patience, (
                f"no recovery {patience} s after it: pushes {self.last_push - since:.1f} s, answers {self.last_answer - since:.1f} s"
            )
            time.sleep(0.05)
        return max(self.last_push, self.last_answer) - since

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join()


def graph(server):
    """({function: own value}, what the answer says that it lacks) of all that there is."""
    question = {
        "profileTypeID": CPU,
        "labelSelector": "{}",
        "start": now_millis() - 3_600_000,
        "end": now_millis() + 60_000,
        "maxNodes": 1_000_000,
    }
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        path = "/querier.v1.QuerierService/SelectMergeStacktraces"
        connection.request("POST", path, json.dumps(question), {"Content-Type": "application/json"})
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {body[:300]!r}")
        flag = response.getheader("x-pyrograph-partial") or response.getheader("x-pyrograph-stale")
        found = paths(json.loads(body)["flamegraph"])
        return {path[-1]: own for path, (_, own) in found.items() if path and own}, flag
    finally:
        connection.close()


@pytest.fixture
def bucket(tmp_path):
    if not seaweed.WEED.exists():
        pytest.skip(f"no {seaweed.WEED}; `make test` installs it")
    store = seaweed.Seaweed(tmp_path / "weed")
    store.start()
    proxy = seaweed.Proxy(store.port)
    yield store, proxy
    proxy.close()
    store.stop()


def test_violence_loses_nothing_and_doubles_nothing(new_server, bucket):
    store, proxy = bucket
    cluster = Cluster(new_server, proxy)
    time.sleep(8)
    cluster.start()
    load = Load(cluster)

    def hurt(what, act, within=None):
        """Does it, and waits until pushes and questions that began later than it ended, or than it began if
        `within` so many seconds, are served."""
        began = time.monotonic()
        act()
        since = began if within else time.monotonic()
        took = load.recovery(since)
        print(f"{what}: served again after {took:.1f} s", flush=True)
        if within:
            assert took <= within, f"{what}: served again after {took:.1f} s, not within {within} s"
        time.sleep(1)

    def killed(name):
        hurt(f"kill -9 {name}", lambda: cluster.restart(name), within=30)

    def paused(name, seconds):
        def act():
            cluster.servers[name].process.send_signal(signal.SIGSTOP)
            time.sleep(seconds)
            cluster.servers[name].process.send_signal(signal.SIGCONT)

        hurt(f"pause {name} for {seconds} s", act)

    def store_is(mode, seconds):
        def act():
            proxy.set(mode)
            time.sleep(seconds)
            proxy.set("pass")

        hurt(f"store: {mode} for {seconds} s", act)

    def store_stops(seconds):
        def act():
            store.stop()
            time.sleep(seconds)
            store.start()
            time.sleep(8)

        hurt(f"store stopped for {seconds} s", act)

    def replaced(name):
        hurt(f"SIGTERM {name}", lambda: cluster.restart(name, signal.SIGTERM), within=30)

    try:
        time.sleep(5)
        for name in ("ingester-0", "distributor-0", "metastore-0", "metastore-1", "compactor-0", "querier-0"):
            killed(name)
        paused("metastore-0", 12)
        if LONG:
            paused("ingester-1", 35)
            paused("compactor-1", 25)
            paused("querier-1", 8)
        for mode in ("refuse", "unavailable", "slow", "cut"):
            store_is(mode, 15 if LONG else 6)
        store_stops(30 if LONG else 12)
        for name in list(cluster.servers) if LONG else [f"{role}-1" for role in REPLICAS]:
            replaced(name)
        for number in (1, 2):
            assert cluster.servers.pop(f"ingester-{number}").stop() == 0
        hurt("one ingester", lambda: time.sleep(3))
        for number in range(1, 5):
            cluster.add("ingester", number).start()
        hurt("five ingesters", lambda: time.sleep(3))
    finally:
        load.end()

    time.sleep(VISIBLE)
    print(load.answers, len(load.acknowledged), "acknowledged of", len(load.sent), flush=True)
    for server in cluster.of("querier"):
        counted, flag = graph(server)
        assert not flag, flag
        lost = load.acknowledged.keys() - counted.keys()
        wrong = {name: value for name, value in counted.items() if value != load.sent.get(name)}
        assert (sorted(lost), wrong) == ([], {})
    assert load.wrong == []
    assert load.answers["good"] > load.answers["flagged"]
    if LONG:
        no_orphans(store, cluster)


def no_orphans(store, cluster):
    """What no row names is gone after the graces and one comparison; a merge may be on its way at any moment."""
    for _ in range(40):
        named = cluster.metric("metastore", "pyrograph_metastore_live_blocks") + cluster.metric("metastore", "pyrograph_metastore_dead_objects")
        blocks = len(store.keys("block"))
        print(f"{blocks} blocks in the bucket, {named:.0f} live blocks and dead objects", flush=True)
        if blocks <= named:
            return
        time.sleep(5)
    raise AssertionError(f"{blocks} blocks in the bucket, {named:.0f} are live or wait to be deleted")
