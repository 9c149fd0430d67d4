"""Processes that find one another by gossip, on one bucket: any of them may be killed during pushes."""

import json
import socket
import subprocess
import threading
import time

import pytest
import seaweed
from harness import BINARY, free_port, pprof, push

NAMES = (
    *("metastore-a", "metastore-b", "ingester-a", "ingester-b"),
    *("querier-a", "querier-b", "distributor-a", "distributor-b", "compactor-a"),
)
# Longest time without an answer, in seconds, after a process was killed.
RECOVERY_MAX = 10


def free_udp_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def cluster(new_server, tmp_path):
    """Nine processes by name; the first metastore has been running for longest."""
    if not seaweed.WEED.exists():
        pytest.skip(f"no {seaweed.WEED}; `make test` installs it")
    store = seaweed.Seaweed(tmp_path / "weed")
    store.start()
    gossip = {name: free_udp_port() for name in NAMES}
    seeds = ",".join(f"127.0.0.1:{gossip[name]}" for name in NAMES[:2])

    def make(name):
        return new_server(
            f"-target={name[:-2]}",
            "-server.grpc-listen-address=127.0.0.1",
            f"-server.grpc-listen-port={free_port()}",
            f"-memberlist.join={seeds}",
            "-memberlist.bind-addr=127.0.0.1",
            f"-memberlist.bind-port={gossip[name]}",
            f"-memberlist.nodename={name}",
            "-self-profiling.disable-push",
            *seaweed.flags(store.port),
            start=False,
        )

    servers = {name: make(name) for name in NAMES}
    servers["metastore-a"].start()
    starts = [threading.Thread(target=server.start) for server in list(servers.values())[1:]]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    yield servers
    store.stop()


def members(server):
    status, body = server.get("/memberlist")
    assert status == 200
    return {member["name"] for member in json.loads(body)["members"]}


def wait_for(title, holds, patience=30, pause=0.1):
    """Waits until `holds()` is true; returns the seconds."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() < began + patience, f"not within {patience} s: {title}"
        time.sleep(pause)
    return time.monotonic() - began


def owner(servers):
    for name in ("metastore-a", "metastore-b"):
        try:
            if servers[name].metric("pyrograph_metastore_owner") == 1:
                return name
        except OSError:
            pass
    return None


class Load:
    """Clients that push without a pause, to any distributor that answers; counts acknowledged profiles."""

    CLIENTS = 6

    def __init__(self, servers):
        self.distributors = [servers["distributor-a"], servers["distributor-b"]]
        self.counts, self.slowest, self.stopping = [0] * self.CLIENTS, 0.0, False
        self.threads = [threading.Thread(target=self.run, args=(client,)) for client in range(self.CLIENTS)]
        for thread in self.threads:
            thread.start()

    @property
    def acknowledged(self):
        return sum(self.counts)

    def run(self, client):
        turn = client
        while not self.stopping:
            document = pprof({(f"f{turn % 50}", "main"): 1}, time_nanos=time.time_ns())
            labels = {"service_name": f"app{turn % 7}", "client": str(client)}
            began = time.monotonic()
            # Repeats the same bytes until they are acknowledged: they count once.
            while not self.pushed(self.distributors[turn % 2], labels, document):
                turn += 1
                time.sleep(0.05)
                if time.monotonic() > began + 60:
                    return
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.counts[client] += 1
            turn += 1

    @staticmethod
    def pushed(distributor, labels, document):
        try:
            return push(distributor, labels, document)[0] == 200
        except OSError:
            return False

    def stop(self):
        self.stopping = True
        for thread in self.threads:
            thread.join()
        return self.acknowledged


def total(server):
    try:
        return server.total("{}")
    except (AssertionError, OSError):
        return None


def sees_fresh(server, load):
    """Whether an answer has every profile that was acknowledged before its query."""
    before = load.acknowledged
    found = total(server)
    return found is not None and found >= before > 0


def test_any_process_may_be_killed_under_load_and_every_profile_counts_once(cluster):
    for server in cluster.values():
        wait_for("all know all", lambda server=server: members(server) == set(NAMES))
    load = Load(cluster)
    queriers = cluster["querier-a"], cluster["querier-b"]
    took = {}
    try:
        for querier in queriers:
            wait_for("fresh answers", lambda querier=querier: sees_fresh(querier, load))

        owns = owner(cluster)
        assert owns == "metastore-a", "the longest running owns the catalog"
        cluster[owns].kill()
        killed = time.monotonic()
        wait_for("an answer", lambda: total(queriers[0]) is not None)
        took["answer after the owner was killed"] = time.monotonic() - killed
        for querier in queriers:
            wait_for("fresh answers", lambda querier=querier: sees_fresh(querier, load))
        took["fresh answers after the owner was killed"] = time.monotonic() - killed
        assert owner(cluster) == "metastore-b"
        cluster[owns].start()

        for name in ("ingester-a", "querier-b", "distributor-b"):
            cluster[name].kill()
            took[f"fresh answer after {name} was killed"] = wait_for("fresh answers", lambda: sees_fresh(queriers[0], load))
            took[f"{name} ready again"] = cluster[name].start()
            wait_for("all know all", lambda: members(queriers[0]) == set(NAMES))

        for name in ("metastore-b", "ingester-b", "compactor-a", "querier-a", "distributor-a"):
            began = time.monotonic()
            assert cluster[name].stop() == 0, cluster[name].log()[-2000:]
            took[f"{name} stopped"] = time.monotonic() - began
            took[f"fresh answer after {name} stopped"] = wait_for("fresh answers", lambda: sees_fresh(queriers[1], load))
            cluster[name].start()
    finally:
        pushed = load.stop()
        print(f"{pushed} pushes, the slowest took {load.slowest:.1f} s")
        for what, seconds in took.items():
            print(f"{seconds:5.1f} s: {what}")

    assert pushed > 100
    for querier in queriers:
        wait_for(f"{pushed} in all", lambda querier=querier: total(querier) == pushed)
    slow = {what: seconds for what, seconds in took.items() if seconds > RECOVERY_MAX}
    assert not slow and load.slowest < RECOVERY_MAX
    for server in cluster.values():
        assert server.stop() == 0, server.log()[-2000:]


def test_an_owner_that_is_stopped_is_replaced_without_failed_requests(cluster):
    for server in cluster.values():
        wait_for("all know all", lambda server=server: members(server) == set(NAMES))
    load, querier, took = Load(cluster), cluster["querier-a"], {}
    try:
        wait_for("fresh answers", lambda: sees_fresh(querier, load))
        for name in ("metastore-a", "metastore-b"):
            assert owner(cluster) == name
            process, stopped_at = cluster[name].process, time.monotonic()
            process.terminate()
            # The leaving owner answers until the first request after it has given up the catalog.
            wait_for("another owner", lambda name=name: owner(cluster) not in (name, None), pause=0.02)
            wait_for("fresh answers", lambda: sees_fresh(querier, load), pause=0.02)
            took[name] = time.monotonic() - stopped_at
            assert process.wait(timeout=40) == 0
            cluster[name].start()
            wait_for("all know all", lambda: members(querier) == set(NAMES))
    finally:
        load.stop()
        print(f"fresh answers after SIGTERM of the owner: {took}")
    assert max(took.values()) < RECOVERY_MAX / 3


def test_the_catalog_is_not_rebuilt_while_a_metastore_runs(cluster):
    def rebuild(*force):
        command = [BINARY, "catalog", "rebuild", *force, "--", *cluster["metastore-b"].flags]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        return done.returncode, done.stdout + done.stderr

    wait_for("an owner", lambda: owner(cluster) == "metastore-a")
    code, said = rebuild()
    assert code == 1 and "metastore-a at 127.0.0.1:" in said and "owns the catalog" in said, said
    for name in ("metastore-a", "metastore-b"):
        cluster[name].kill()
    wait_for("silence", lambda: not {"metastore-a", "metastore-b"} & members(cluster["querier-a"]))
    # The rebuild waits until the catalog was unchanged for a minute.
    code, said = rebuild()
    assert code == 0 and "rebuilt the catalog" in said, said
    code, said = rebuild("--force")
    assert code == 0 and "rebuilt the catalog" in said, said
