"""Failures of the environment: each error names the object, the cause and the remedy, and affects nothing else."""

import http.server
import json
import pathlib
import shutil
import ssl
import subprocess
import threading
import time
import urllib.request
from email.utils import formatdate

import pytest
import seaweed
from harness import Server, pprof, push
from proxy import Proxy

LABELS = {"service_name": "app"}


def refusal(server, patience=20):
    """The log of a server that does not start."""
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="server exited with 1"):
        server.start()
    assert time.monotonic() - began < patience, "it takes too long to give up"
    return server.log().splitlines()[-1]


def wait_for(condition, patience=60):
    until = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < until, f"not within {patience} s"
        time.sleep(0.2)
    return found


# --- a bucket


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    if not seaweed.WEED.exists():
        pytest.skip(f"no {seaweed.WEED}; `make test` installs it")
    store = seaweed.Seaweed(tmp_path_factory.mktemp("weed") / "data")
    store.start()
    first = Server(tmp_path_factory.mktemp("first") / "data", *seaweed.flags(store.port), "-self-profiling.disable-push")
    first.start()
    first.kill()
    yield store
    store.stop()


@pytest.mark.parametrize(
    "flags, words",
    [
        (["-storage.s3.bucket-name=elsewhere"], ["the bucket does not exist", "create it or correct its name"]),
        (["-storage.s3.access-key-id=nobody"], ["cluster", "does not accept the credentials", "check the keys"]),
        (["-storage.s3.secret-access-key=wrong"], ["cluster", "does not accept the credentials", "check the keys"]),
        (["-storage.s3.endpoint=127.0.0.1:1"], ["cannot connect to 127.0.0.1:1", "check the endpoint"]),
        (["-storage.s3.endpoint=nowhere.invalid"], ["cannot connect to nowhere.invalid", "DNS"]),
        (["-storage.cluster-name=other"], ['belongs to cluster "pyrograph"', "-storage.cluster-name", "-storage.prefix"]),
        (["-storage.s3.bucket-name="], ["storage.s3.bucket-name is empty"]),
        (["-storage.s3.http.tls-ca-path=/nowhere.pem"], ["/nowhere.pem", "storage.s3.http.tls-ca-path"]),
        (["-storage.s3.credentials-file=/nowhere", "-storage.s3.access-key-id="], ["/nowhere", "storage.s3.credentials-file"]),
        (["-storage.s3.sse.kms-encryption-context={}"], ["kms-encryption-context", "leave it empty"]),
    ],
)
def test_an_unusable_bucket_is_refused_with_the_reason(new_server, store, flags, words):
    server = new_server(*seaweed.flags(store.port), *flags, start=False)
    said = refusal(server)
    for word in words:
        assert word in said, said


def test_objects_are_encrypted_if_configured(new_server, store):
    server = new_server(
        *seaweed.flags(store.port), "-storage.prefix=sse", "-storage.s3.sse.type=SSE-S3", "-self-profiling.disable-push"
    )
    assert push(server, LABELS, pprof({("a",): 7}))[0] == 200
    assert server.total("{}") == 7


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture
def private_ca(tmp_path):
    """(certificate of an unknown authority, its certificate for 127.0.0.1, key)."""
    ca, ca_key, request, cert, key, names = (
        tmp_path / name for name in ("ca.pem", "ca.key", "req.pem", "cert.pem", "cert.key", "names")
    )
    names.write_text("subjectAltName=IP:127.0.0.1\n")
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", 2, "-subj", "/CN=private", "-keyout", ca_key, "-out", ca)
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=store", "-keyout", key, "-out", request)
    openssl("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-days", 2, "-extfile", names, "-out", cert)
    return ca, cert, key


def test_a_private_authority_is_trusted_if_configured(new_server, store, private_ca):
    ca, cert, key = private_ca
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    proxy = Proxy(store.port, context)
    encrypted = [flag for flag in seaweed.flags(proxy.port) if flag != "-storage.s3.insecure"]
    said = refusal(new_server(*encrypted, start=False))
    assert "certificate" in said and "-storage.s3.http.tls-ca-path" in said, said
    customer_key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
    customer = ["-storage.s3.sse.type=SSE-C", f"-storage.s3.sse.customer-key={customer_key}"]
    for more in (
        [f"-storage.s3.http.tls-ca-path={ca}"],
        ["-storage.s3.http.insecure-skip-verify"],
        [f"-storage.s3.http.tls-ca-path={ca}", "-storage.s3.unsigned-payload"],
        [f"-storage.s3.http.tls-ca-path={ca}", *customer],
    ):
        prefix = f"-storage.prefix=tls{len(more)}{len(more[0])}{len(more[-1])}"
        server = new_server(*encrypted, *more, prefix, "-self-profiling.disable-push")
        assert push(server, LABELS, pprof({("a",): 7}))[0] == 200
        assert server.total("{}") == 7
        server.kill()
    proxy.close()


class SkewedClockStore(http.server.BaseHTTPRequestHandler):
    """Answers like S3 to a client whose clock is an hour ahead."""

    def do_GET(self):
        body = b"<Error><Code>RequestTimeTooSkewed</Code><Message>The difference is too large.</Message></Error>"
        self.send_response_only(403)
        self.send_header("Date", formatdate(time.time() - 3600, usegmt=True))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_a_wrong_clock_is_reported_with_its_error(new_server):
    wrong = http.server.ThreadingHTTPServer(("127.0.0.1", 0), SkewedClockStore)
    threading.Thread(target=wrong.serve_forever, daemon=True).start()
    said = refusal(new_server(*seaweed.flags(wrong.server_port), start=False))
    wrong.shutdown()
    assert "the clock of this machine is 36" in said and "ahead of the store's" in said and "NTP" in said, said


def test_an_unreachable_bucket_fails_pushes_and_nothing_else(new_server, store):
    proxy = Proxy(store.port)
    server = new_server(*seaweed.flags(proxy.port), "-storage.prefix=away", "-self-profiling.disable-push")
    assert push(server, LABELS, pprof({("before",): 1}))[0] == 200
    answered, before = [], server.resident_mib()
    for mode in ("refuse", "unavailable"):
        proxy.set(mode)
        until, threads = time.monotonic() + 15, []

        def writer(number):
            while time.monotonic() < until:
                status, body = push(server, LABELS, pprof({(f"lost{number}", mode): 1} | {(f"f{n}",): 1 for n in range(200)}))
                answered.append((status, body))
                time.sleep(0.05)

        threads = [threading.Thread(target=writer, args=(n,)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    grown = server.resident_mib() - before
    proxy.set("pass")
    began = time.monotonic()
    wait_for(lambda: push(server, LABELS, pprof({("after",): 1}))[0] == 200, 10)
    back = time.monotonic() - began
    print(f"{len(answered)} pushes failed while the bucket was away, {grown:.0f} MiB more, back after {back:.1f} s")
    assert answered and all(status in (429, 503) for status, _ in answered), {status for status, _ in answered}
    assert all(b"settled" in body or b"wait for the store" in body for _, body in answered), answered[0]
    assert grown < 100
    server.kill()
    proxy.close()


# --- a directory


def test_a_directory_in_use_is_refused_with_the_pid(new_server):
    first = new_server("-self-profiling.disable-push")
    second = new_server(f"-storage.filesystem.dir={first.directory}", start=False)
    said = refusal(second)
    assert f"in use by process {first.process.pid}" in said and "-storage.filesystem.dir" in said, said


def test_data_of_a_newer_version_are_refused(new_server):
    server = new_server("-self-profiling.disable-push")
    server.stop()
    directory = pathlib.Path(server.directory)
    cluster = json.loads((directory / "cluster").read_text())
    (directory / "cluster").write_text(json.dumps({**cluster, "layout_version": 3}))
    said = refusal(server)
    assert "has layout version 3" in said and "start a newer pyrograph" in said, said
    (directory / "cluster").write_text(json.dumps(cluster))
    newest = max((directory / "catalog").rglob("commit/*"))
    bytes_ = bytearray(newest.read_bytes())
    bytes_[4] = 99
    newest.write_bytes(bytes_)
    said = refusal(server)
    assert "version 99" in said and newest.name in said, said


def test_a_full_disk_fails_pushes_until_there_is_space(new_server, disk):
    server = new_server(f"-storage.filesystem.dir={disk}/data", "-self-profiling.disable-push")
    assert push(server, LABELS, pprof({("before",): 1}))[0] == 200
    (disk / "filler").write_bytes(b"x" * (shutil.disk_usage(disk).free - 4096))
    status, body = push(server, LABELS, pprof({(f"f{n}", "lost"): 1 for n in range(5000)}))
    assert status == 503, (status, body)
    assert "no space left" in server.log(), server.log()[-2000:]
    assert server.total("{}") >= 1, "queries are answered"
    (disk / "filler").unlink()
    wait_for(lambda: push(server, LABELS, pprof({("after",): 1}))[0] == 200, 15)
    server.stop()


def test_a_read_only_directory_is_refused(new_server, disk):
    server = new_server(f"-storage.filesystem.dir={disk}/data", "-self-profiling.disable-push")
    server.stop()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    said = refusal(server)
    assert "cannot use directory" in said and "read-only" in said.lower(), said


# --- an object


def ask(server, selector):
    """(total, the header about objects that could not be read)."""
    query = {
        "profileTypeID": "process_cpu:cpu:nanoseconds:cpu:nanoseconds",
        "labelSelector": selector,
        "start": time.time_ns() // 1_000_000 - 3_600_000,
        "end": time.time_ns() // 1_000_000 + 60_000,
    }
    request = urllib.request.Request(
        f"{server.url}/querier.v1.QuerierService/SelectMergeStacktraces",
        json.dumps(query).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        graph = json.load(response).get("flamegraph") or {}
        partial = response.headers.get("x-pyrograph-partial")
        why = response.headers.get("x-pyrograph-partial-why", "")
    return int(graph.get("total") or 0), partial and f"{partial}: {why}"


def damages(bytes_):
    """Damaged forms of an object: cut off, empty, and with a flipped byte in each of its parts."""
    yield "empty", b""
    yield "half", bytes_[: len(bytes_) // 2]
    yield "without its last byte", bytes_[:-1]
    for part in range(24):
        at = len(bytes_) * part // 24
        yield f"byte {at} flipped", bytes_[:at] + bytes([bytes_[at] ^ 0x55]) + bytes_[at + 1 :]
    for at in range(len(bytes_) - 8, len(bytes_)):
        yield f"byte {at} flipped", bytes_[:at] + bytes([bytes_[at] ^ 0x55]) + bytes_[at + 1 :]


@pytest.mark.parametrize("folder", ["log", "block"])
def test_a_damaged_object_is_reported_and_quarantined_and_the_rest_is_answered(new_server, folder):
    merge = "1s" if folder == "block" else "1h"
    server = new_server("-self-profiling.disable-push", f"-metastore.merge-after={merge}", "-compactor.poll-interval=100ms")
    directory = pathlib.Path(server.directory)

    def objects():
        files = (path for path in (directory / folder).rglob("*") if "#" not in path.name and path.is_file())
        return {path for path in files if path.stat().st_size > 300}

    def add(service, value):
        known = objects() if directory.joinpath(folder).exists() else set()
        assert push(server, {"service_name": service}, pprof({("main", f"f{n}"): value for n in range(50)}))[0] == 200
        return wait_for(lambda: (directory / folder).exists() and objects() - known, 30).pop()

    hurt, _ = add("hurt", 3), add("whole", 5)
    assert ask(server, "{}") == (50 * 8, None)
    time.sleep(2)  # the catalog knows both by now
    server.kill()
    good, reported, whole = hurt.read_bytes(), 0, directory.with_name("whole")
    shutil.copytree(directory, whole)
    for name, bytes_ in damages(good):
        shutil.rmtree(directory)
        shutil.copytree(whole, directory)
        hurt.write_bytes(bytes_)
        server.start()
        total, partial = ask(server, "{}")
        assert (total, partial) == (400, None) or (total == 250 and partial), f"{name}: {total}, {partial}"
        if partial:
            reported += 1
            assert hurt.name in partial, f"{name}: {partial}"
            wait_for(lambda: server.metric("pyrograph_metastore_quarantined_objects") == 1, 10)
        assert ask(server, '{service_name="whole"}')[0] == 250, name
        server.kill()
        if reported == 1:
            # It stays quarantined, even with its good bytes.
            hurt.write_bytes(good)
            server.start()
            total, partial = ask(server, "{}")
            assert total == 250 and hurt.name in partial, (total, partial)
            server.kill()
    assert reported > 10, "most bytes matter"


def test_damage_in_the_disk_cache_does_no_harm(new_server, tmp_path):
    cache = tmp_path / "cache"
    server = new_server("-self-profiling.disable-push", "-metastore.merge-after=1h", f"-querier.disk-cache-dir={cache}")
    assert push(server, {"service_name": "app"}, pprof({("main",): 5}))[0] == 200
    assert ask(server, "{}") == (5, None)
    files = wait_for(lambda: [path for path in cache.rglob("*") if path.is_file() and "." not in path.name], 20)
    server.kill()
    for path in files:
        bytes_ = bytearray(path.read_bytes())
        bytes_[len(bytes_) // 2] ^= 0x55
        path.write_bytes(bytes_)
    server.start()
    wait_for(lambda: server.metric("pyrograph_block_disk_cache_bytes") > 0, 20)
    assert ask(server, "{}") == (5, None)
    assert server.metric("pyrograph_block_disk_cache_failures_total") > 0
    assert server.metric("pyrograph_metastore_quarantined_objects") == 0


def test_an_input_that_cannot_be_merged_is_quarantined_and_its_neighbours_are_merged(new_server):
    server = new_server("-self-profiling.disable-push", "-metastore.merge-after=1h")
    directory = pathlib.Path(server.directory)
    for service in ("hurt", "one", "two"):
        assert push(server, {"service_name": service}, pprof({("main",): 5}))[0] == 200
    time.sleep(2)  # the catalog knows all three by now
    server.kill()
    segments = sorted((directory / "log").rglob("*"), key=lambda path: path.stat().st_mtime)
    hurt = next(path for path in segments if path.is_file() and path.stat().st_size > 300)
    bytes_ = bytearray(hurt.read_bytes())
    middle = len(bytes_) // 3
    bytes_[middle : middle + 64] = bytes(64)
    hurt.write_bytes(bytes_)
    server.flags = ("-self-profiling.disable-push", "-metastore.merge-after=1s", "-compactor.poll-interval=100ms")
    server.start()
    wait_for(lambda: server.metric("pyrograph_metastore_quarantined_objects") == 1, 120)
    wait_for(lambda: (directory / "block").exists() and any(p.is_file() for p in (directory / "block").rglob("*")), 60)
    assert hurt.name in server.log() and "quarantined" in server.log()
    total, partial = ask(server, "{}")
    assert total == 10 and partial and hurt.name in partial, (total, partial)
