"""Every role in a separate process, on one bucket: the same behaviour as one process."""

import subprocess
import time

import pytest
import seaweed
from harness import BINARY, CPU, free_port, now_millis, pprof, push


@pytest.fixture
def bucket(tmp_path):
    """The flags that name a bucket of a fresh SeaweedFS."""
    if not seaweed.WEED.exists():
        pytest.skip(f"no {seaweed.WEED}; `make test` installs it")
    store = seaweed.Seaweed(tmp_path / "weed")
    store.start()
    yield seaweed.flags(store.port)
    store.stop()


@pytest.fixture
def cluster(new_server, bucket):
    """Six processes: {name: (server, port between roles)}."""
    ports = {name: free_port() for name in ("metastore", "ingester", "ingester-2", "compactor", "querier", "distributor")}
    at = {name: f"127.0.0.1:{port}" for name, port in ports.items()}

    def make(name, *flags):
        target = name.removesuffix("-2")
        return new_server(
            f"-target={target}",
            "-server.grpc-listen-address=127.0.0.1",
            f"-server.grpc-listen-port={ports[name]}",
            f"-metastore.address={at['metastore']}",
            *bucket,
            *flags,
            start=False,
        )

    servers = {name: make(name) for name in ("metastore", "ingester", "ingester-2", "compactor")}
    servers["querier"] = make("querier", f"-querier.leaf-addresses={at['querier']}")
    servers["distributor"] = make(
        "distributor", f"-distributor.ingester-addresses={at['ingester']},{at['ingester-2']}", "-self-profiling.disable-push"
    )
    for server in servers.values():
        server.start()
    return servers


def wait_for(total, querier, patience=20):
    """Waits for the total; an owner of the catalog answers a little later than it listens."""
    until = time.monotonic() + patience
    while True:
        try:
            found = querier.total('{service_name="app"}')
        except AssertionError as error:
            found = error
        if found == total:
            return
        assert time.monotonic() < until, f"expected {total}, found {found}"
        time.sleep(0.2)


def test_separate_roles_answer_like_one_process_and_any_of_them_may_be_killed(cluster):
    distributor, querier = cluster["distributor"], cluster["querier"]
    pushed = 0

    def push_some(count):
        nonlocal pushed
        for i in range(count):
            document = pprof({(f"f{pushed}", "main"): 1}, time_nanos=time.time_ns())
            status, body = push(distributor, {"service_name": "app", "pod": f"p{i % 3}"}, document)
            assert status == 200, body
            pushed += 1

    push_some(10)
    assert querier.total('{service_name="app"}') == pushed, "an acknowledged push is seen by the next query"
    query = {"start": now_millis() - 3_600_000, "end": now_millis() + 60_000}
    names = querier.rpc("querier.v1.QuerierService/LabelNames", **query)["names"]
    assert {"pod", "service_name"} <= set(names)
    merged = querier.rpc(
        "querier.v1.QuerierService/SelectMergeProfile", profileTypeID=CPU, labelSelector="{}", **query
    )
    assert len(merged["sample"]) == pushed and "f9" in merged["stringTable"]
    series = querier.rpc(
        "querier.v1.QuerierService/SelectSeries", profileTypeID=CPU, labelSelector="{}", step=60, groupBy=["pod"], **query
    )["series"]
    assert sum(point["value"] for one in series for point in one["points"]) == pushed
    assert distributor.post("/querier.v1.QuerierService/LabelNames", b"{}")[0] == 404, "it is not a querier"

    cluster["ingester"].kill()
    push_some(6)
    wait_for(pushed, querier)
    cluster["ingester"].start()

    cluster["metastore"].kill()
    push_some(4)
    cluster["metastore"].start()
    wait_for(pushed, querier)

    for name in ("compactor", "querier"):
        cluster[name].kill()
        cluster[name].start()
    push_some(4)
    wait_for(pushed, querier)

    for server in cluster.values():
        assert server.stop() == 0, server.log()[-2000:]


def test_a_missing_role_is_reported_with_its_flag(tmp_path):
    def refused(*flags):
        run = subprocess.run(
            [BINARY, "server", "-server.http-listen-port=0", f"-storage.filesystem.dir={tmp_path}", *flags],
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert run.returncode == 1
        return run.stderr

    assert "-metastore.address" in refused("-target=compactor")
    assert "-distributor.ingester-addresses" in refused("-target=distributor")
    assert "did you mean querier?" in refused("-target=distributor,querrier")
    assert "not <host>:<port>" in refused("-target=distributor", "-distributor.ingester-addresses=a b")
