"""Injects faults of every kind into a cluster of real processes under pushes and queries; then counts all profiles.

`make chaos` runs longer and with more faults than `make test`.
"""

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import threading
import time
import uuid

import pytest
import seaweed
from harness import BINARY, ROOT, free_port, now_millis
from load import VISIBLE, Load, graph
from proxy import Proxy

REPLICAS = {"distributor": 2, "ingester": 3, "metastore": 2, "compactor": 2, "querier": 2}
# Roles that others call.
CALLED = ("ingester", "metastore", "querier")
# A killed process is started again this much later, like a container.
RESTART = 1.0
LONG = os.environ.get("PYROGRAPH_CHAOS") == "long"
# Time until requests succeed again after a kill: the target, and the limit on a busy machine.
AIM, LIMIT = 10.0, 20.0
# Seconds. No push is repeated for longer than the window.
DEDUP_WINDOW, DEDUP_SLACK = (90, 15) if LONG else (30, 5)
SWEEP_GRACE = 20
ORPHAN_GRACE = 30
HOUR = 3600


class Cluster:
    """The processes of a cluster by name, `<role>-<number>`, and the proxies through which others call them."""

    def __init__(self, new_server, store_port, directory):
        self.new_server, self.store_port, self.directory = new_server, store_port, directory
        self.servers, self.proxies = {}, {}
        self.seeds = [free_port() for _ in range(2)]
        self.skew = compiled_skew(directory)
        self.small_disk = directory / "small-disk"
        self.small_disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", self.small_disk]
        self.has_small_disk = subprocess.run(mount, stderr=subprocess.DEVNULL).returncode == 0

    def add(self, role, number):
        gossip = self.seeds[number] if role == "metastore" and number < 2 else free_port()
        between = free_port()
        if role in CALLED:
            # It listens on 127.0.0.1 and announces 127.0.0.2, on the same port: the address of its proxy.
            if old := self.proxies.pop(f"{role}-{number}", None):
                old.close()
            self.proxies[f"{role}-{number}"] = Proxy(between, host="127.0.0.2", port=between)
        cache = self.small_disk if (role, number) == ("querier", 0) else self.directory / f"cache-{number}"
        server = self.new_server(
            f"-target={role}",
            "-server.grpc-listen-address=127.0.0.1",
            f"-server.grpc-listen-port={between}",
            "-memberlist.advertise-addr=127.0.0.2",
            f"-memberlist.bind-port={gossip}",
            f"-memberlist.join={','.join(f'127.0.0.1:{port}' for port in self.seeds)}",
            f"-memberlist.nodename={role}-{number}",
            f"-metastore.dedup-window={DEDUP_WINDOW}s",
            f"-metastore.dedup-slack={DEDUP_SLACK}s",
            f"-metastore.sweep-grace={SWEEP_GRACE}s",
            f"-metastore.orphan-grace={ORPHAN_GRACE}s",
            "-metastore.retention-interval=5s",
            "-metastore.reconcile-interval=10s",
            "-metastore.merge-after=3s",
            "-metastore.settle-after=5s",
            "-metastore.attempt-time=20s",
            "-compactor.sweep-interval=2s",
            *([f"-querier.disk-cache-dir={cache}"] if role == "querier" else []),
            "-self-profiling.disable-push",
            *seaweed.flags(self.store_port),
            start=False,
        )
        self.servers[f"{role}-{number}"] = server
        if self.skew:
            server.env = {"LD_PRELOAD": str(self.skew), "SKEW_FILE": str(self.directory / f"{role}-{number}.skew")}
            self.set_clock(f"{role}-{number}", 0)
        return server

    def set_clock(self, name, seconds_ahead):
        # Written in place, because the process has the file mapped.
        file = os.open(self.directory / f"{name}.skew", os.O_WRONLY | os.O_CREAT)
        os.pwrite(file, struct.pack("=q", seconds_ahead), 0)
        os.close(file)

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

    def is_called_through_proxies(self):
        members = json.loads(self.of("querier")[0].get("/memberlist")[1])["members"]
        addresses = {member["name"]: member["address"] for member in members if member["address"]}
        assert addresses and all(address.startswith("127.0.0.2:") for address in addresses.values()), addresses

    def of(self, role):
        return [server for name, server in list(self.servers.items()) if name.rpartition("-")[0] == role]

    def restart(self, name, signal_=signal.SIGKILL):
        server = self.servers[name]
        server.process.send_signal(signal_)
        code = server.process.wait(timeout=60)
        if signal_ == signal.SIGTERM:
            assert code == 0, f"{name} drained with {code}: {server.log()[-3000:]}"
        time.sleep(RESTART)
        server.start()

    def remove(self, name):
        assert self.servers.pop(name).stop() == 0

    def owner(self, patience=30):
        """The name of the metastore that owns the catalog."""
        until = time.monotonic() + patience
        while True:
            owners = [name for name in self.servers if name.startswith("metastore-") and self.owns(self.servers[name])]
            if len(owners) == 1:
                return owners[0]
            assert time.monotonic() < until, f"owners of the catalog: {owners}"
            time.sleep(0.2)

    def owns(self, server):
        return server.metric("pyrograph_metastore_owner") == 1

    def close(self):
        for proxy in self.proxies.values():
            proxy.close()
        if self.has_small_disk:
            subprocess.run(["umount", "-l", self.small_disk], check=True)


def compiled_skew(directory):
    """The library that skews the clock of a process; None without a C compiler."""
    compiler = shutil.which("cc")
    if not compiler:
        return None
    library = directory / "skew.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, ROOT / "tests/skew.c"], check=True)
    return library


@pytest.fixture
def bucket(tmp_path):
    """SeaweedFS, and a proxy in front of it."""
    if not seaweed.WEED.exists():
        pytest.skip(f"no {seaweed.WEED}; `make test` installs it")
    store = seaweed.Seaweed(tmp_path / "weed")
    try:
        store.start()
        proxy = Proxy(store.port)
        yield store, proxy
        proxy.close()
    finally:
        store.stop()


@pytest.fixture
def cluster(new_server, bucket, tmp_path):
    cluster = Cluster(new_server, bucket[1].port, tmp_path)
    yield cluster
    cluster.close()


def test_faults_neither_lose_nor_duplicate_profiles(cluster, bucket):
    store, store_proxy = bucket
    cluster.start()
    cluster.is_called_through_proxies()
    began = time.monotonic()
    load, kills = Load(cluster), []

    def hurt(fault, act, is_kill=False):
        """Injects a fault. Then waits until all processes serve pushes and queries that began after its end (after
        its start if it is a kill)."""
        since = time.monotonic()
        act()
        took = load.recovery(since if is_kill else time.monotonic())
        print(f"{time.monotonic() - began:5.0f} s  {fault}: {took}", flush=True)
        if is_kill:
            kills.append(took.seconds)
            assert took.seconds <= LIMIT, f"{fault}: not within {LIMIT} s: {took}"

    def killed(name):
        hurt(f"kill -9 {name}", lambda: cluster.restart(name), is_kill=True)

    def replaced(name):
        hurt(f"SIGTERM {name}", lambda: cluster.restart(name, signal.SIGTERM), is_kill=True)

    def paused(name, seconds):
        def act():
            cluster.servers[name].process.send_signal(signal.SIGSTOP)
            time.sleep(seconds)
            cluster.servers[name].process.send_signal(signal.SIGCONT)

        hurt(f"pause {name} for {seconds} s", act)

    def behind(proxies, mode, seconds):
        def act():
            for proxy in proxies:
                proxy.set(mode)
            time.sleep(seconds)
            for proxy in proxies:
                proxy.set("pass")

        return act

    def calls_are(mode, names, seconds):
        proxies = [cluster.proxies[name] for name in names]
        hurt(f"calls of {', '.join(names)}: {mode} for {seconds} s", behind(proxies, mode, seconds))

    def store_is(mode, seconds):
        hurt(f"store: {mode} for {seconds} s", behind([store_proxy], mode, seconds))

    def store_stops(seconds):
        def act():
            store.stop()
            time.sleep(seconds)
            store.start()

        hurt(f"store stopped for {seconds} s", act)

    def clock_is_wrong(name, seconds):
        """The store refuses the process's signatures; its log names the clock. A start is refused."""

        def act():
            cluster.set_clock(name, HOUR)
            time.sleep(seconds)
            cluster.set_clock(name, 0)

        hurt(f"clock of {name} an hour ahead for {seconds} s", act)
        server = cluster.servers[name]
        assert "the clock of this machine is 36" in server.log(), server.log()[-3000:]
        if LONG:
            server.kill()
            cluster.set_clock(name, -HOUR)
            with pytest.raises(RuntimeError, match="the clock of this machine is 3[56].* behind the store's"):
                server.start()
            cluster.set_clock(name, 0)
            hurt(f"{name} started with a right clock", server.start)

    try:
        hurt("start", lambda: time.sleep(2))
        for name in ("ingester-0", "distributor-0", "compactor-0", "querier-0", cluster.owner()):
            killed(name)
        killed(cluster.owner())
        paused(cluster.owner(), 12)
        if LONG:
            paused("ingester-1", 35)
            paused("compactor-1", 25)
            paused("querier-1", 8)
        calls_are("cut", list(cluster.proxies), 20 if LONG else 5)
        calls_are("hold", [cluster.owner(), "ingester-0"], 20 if LONG else 6)
        if LONG:
            calls_are("hold", ["querier-0", "ingester-1", "ingester-2"], 20)
            calls_are("refuse", [name for name in cluster.proxies if name.startswith("metastore-")], 15)
        for mode in ("refuse", "unavailable", "slow", "cut"):
            store_is(mode, 15 if LONG else 4)
        store_stops(30 if LONG else 10)
        if cluster.skew:
            for name in [cluster.owner(), "ingester-0"] if LONG else ["ingester-0"]:
                clock_is_wrong(name, 20 if LONG else 5)
        else:
            print("no C compiler: no clock was made wrong", flush=True)
        for name in list(cluster.servers) if LONG else [f"{role}-1" for role in CALLED]:
            replaced(name)
        for name in ("ingester-1", "ingester-2"):
            cluster.remove(name)
        hurt("one ingester", lambda: time.sleep(2))
        planted = plant_orphans(store)
        for number in range(1, 5):
            cluster.add("ingester", number).start()
        hurt("five ingesters", lambda: time.sleep(2))
        print(per_second("store requests while it was hurt", store_proxy, time.monotonic() - began), flush=True)
    finally:
        load.end()

    store_proxy.requests.clear()
    ended = time.monotonic()
    wait_until_nothing_is_left_over(store, cluster, planted)
    time.sleep(max(0.0, ended + VISIBLE - time.monotonic()))
    print(per_second("store requests afterwards", store_proxy, time.monotonic() - ended), flush=True)
    print(load.answers, len(load.acknowledged), "acknowledged of", len(load.sent), flush=True)
    print(f"served again after a kill: {max(kills):.1f} s at most, of {AIM} s", flush=True)
    for server in cluster.of("querier"):
        counted, flag = graph(server)
        assert not flag, flag
        lost = load.acknowledged.keys() - counted.keys()
        wrong = {name: value for name, value in counted.items() if value != load.sent.get(name)}
        assert (sorted(lost), wrong) == ([], {})
    if cluster.has_small_disk:
        assert cluster.servers["querier-0"].metric("pyrograph_block_disk_cache_failures_total") > 0
    else:
        print("no permission to mount: no disk was full", flush=True)
    assert load.wrong == []
    assert load.answers["good"] > load.answers["flagged"]
    print(f"sent again for {load.resent_longest():.1f} s at most, of {DEDUP_WINDOW} s", flush=True)
    assert load.resent_longest() < DEDUP_WINDOW, "the window is too short for how long this test sends again"


def per_second(title, proxy, seconds):
    rates = ", ".join(f"{count / seconds:.1f} {method}/s" for method, count in sorted(proxy.requests.items()))
    return f"{title}: {rates}"


def plant_orphans(store):
    """Creates the leftovers of an abandoned attempt and of a writer that was cut off: a block of an unknown job, and
    slots above seals."""
    folder, block = next((key.rpartition("/")[0], body) for key in store.keys("block") if (body := store.read(key)))
    # All ids of a cluster end like the cluster's own id.
    tag = json.loads(store.read("cluster"))["id"][-8:]
    planted, segment = {f"{folder}/{uuid.uuid4().hex[:24]}{tag}-1-0": block}, None
    for key in store.keys("log"):
        body = store.read(key)
        if is_seal(body):
            writer, _, seq = key.rpartition("/")
            planted[f"{writer}/{int(seq) + 1:012}"] = segment
        elif body:
            segment = body
    planted = {key: body for key, body in planted.items() if body}
    assert len(planted) >= 2, f"no closed log among {store.keys('log')}"
    for key, body in planted.items():
        store.request("PUT", key, body)
    return planted.keys()


def is_seal(body):
    return body is not None and body.startswith(b"PYGSEAL1")


def wait_until_nothing_is_left_over(store, cluster, planted, patience=120):
    """Waits until the bucket holds exactly the objects that the catalog names: as many blocks and segments as are live,
    and one seal as the last slot of each closed log. A query over all data shows that the live ones are in the bucket.

    A dead segment stays as long as its keys may be needed, so one from a clock that is ahead stays that much longer.
    """
    began = time.monotonic()
    while True:
        owner = cluster.servers[cluster.owner()]
        blocks, slots = store.keys("block"), store.keys("log")
        names = ("live_blocks", "live_segments", "dead_objects", "quarantined_objects")
        live, segments, dead, quarantined = (int(owner.metric(f"pyrograph_metastore_{name}")) for name in names)
        bodies = {slot: body for slot in slots if (body := store.read(slot))}
        data = {slot: body for slot, body in bodies.items() if not is_seal(body)}
        text = (
            f"{len(blocks)} blocks, {len(data)} segments and {len(bodies) - len(data)} seals in the bucket; "
            f"{live} blocks and {segments} segments are live, {dead} objects dead, {quarantined} quarantined"
        )
        counts = (len(blocks), len(data), quarantined) == (live, segments + dead, 0)
        left = [key for key in planted if key in {*blocks, *slots}]
        if counts and not left and seals_are_last(bodies) and (dead == 0 or is_from_the_future(cluster, data, dead)):
            print(f"{time.monotonic() - began:.0f} s later: {text}", flush=True)
            return
        assert time.monotonic() < began + patience, f"{text}; {left} of the planted objects"
        time.sleep(2)


def seals_are_last(slots):
    last = {}
    for slot in sorted(slots):
        writer, _, seq = slot.rpartition("/")
        last[writer] = seq
    return all(last[slot.rpartition("/")[0]] == slot.rpartition("/")[2] for slot, body in slots.items() if is_seal(body))


def is_from_the_future(cluster, segments, count):
    """Whether exactly `count` of the segments were made by a clock that is ahead."""
    file, ahead = cluster.directory / "inspected", 0
    for body in segments.values():
        file.write_bytes(body)
        text = subprocess.run([BINARY, "block", "inspect", file], capture_output=True, text=True, check=True, timeout=30).stdout
        created = int(re.search(r"created (\d+) ms", text).group(1))
        ahead += created > now_millis()
    return ahead == count
