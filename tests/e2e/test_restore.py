"""The catalog is lost, damaged, old or copied: every acknowledged push counts once, as docs/operations.md promises."""

import datetime
import re
import shutil
import subprocess
import threading
import time

import pytest
import seaweed
from harness import BINARY, ROOT, Server, pprof, push

LABELS = {"service_name": "app"}
SELECTOR = '{service_name="app"}'
# Merges segments into blocks within seconds, and merges blocks of the past again.
FAST = (
    "-self-profiling.disable-push",
    "-metastore.merge-after=1s",
    "-metastore.settle-after=2s",
    "-metastore.retention-interval=1s",
    "-metastore.reconcile-interval=1s",
    "-compactor.poll-interval=500ms",
)
# No object is protected by its age: a wrongly deleted one is gone within seconds.
RUTHLESS = (*FAST, "-metastore.orphan-grace=1s", "-metastore.sweep-grace=1s", "-compactor.sweep-interval=1s")


class Load:
    """Pushes profiles with a value of one; counts the acknowledged ones."""

    def __init__(self, server, clients=2):
        self.server, self.acknowledged, self.stopped = server, 0, threading.Event()
        self.lock, self.number = threading.Lock(), 0
        self.threads = [threading.Thread(target=self.run) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def run(self):
        while not self.stopped.is_set():
            with self.lock:
                self.number += 1
                number = self.number
            profile = pprof({(f"leaf-{number}", "main"): 1})
            # Repeats a push without an answer, like SDKs.
            while not self.stopped.is_set():
                try:
                    if push(self.server, LABELS, profile)[0] == 200:
                        with self.lock:
                            self.acknowledged += 1
                        break
                except OSError:
                    pass
                time.sleep(0.05)

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join()
        return self.acknowledged


def wait_for(title, condition, patience=60):
    until = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < until, f"no {title} within {patience} s"
        time.sleep(0.2)
    return found


def counts(server):
    """How often each pushed profile counts."""
    graph = server.flamegraph(SELECTOR, maxNodes=1_000_000)
    return {path[-1]: total for path, (total, _) in graph.items() if len(path) > 1}


def check_whole(server, acknowledged, unacknowledged=0):
    found = counts(server)
    assert set(found.values()) <= {1}, "no profile counts twice"
    assert acknowledged <= len(found) <= acknowledged + unacknowledged


def live_blocks(server):
    return server.metric("pyrograph_metastore_live_blocks")


def push_many(server, first, count):
    for number in range(first, first + count):
        assert push(server, LABELS, pprof({(f"leaf-{number}", "main"): 1}))[0] == 200


@pytest.fixture
def filled(tmp_path):
    """A stopped server whose 40 profiles are stored in blocks and segments."""
    server = Server(tmp_path / "data", *FAST)
    server.start()
    push_many(server, 0, 30)
    wait_for("block", lambda: live_blocks(server) >= 1 and server.metric("pyrograph_metastore_live_segments") == 0)
    push_many(server, 30, 10)
    yield server
    server.kill()


def commands(page, heading):
    """The commands of the first code block below a heading of a page in docs."""
    text = (ROOT / "docs" / page).read_text()
    section = text[text.index(f"\n{heading}\n") :]
    return re.search(r"```sh\n(.*?)```", section, re.DOTALL).group(1)


def run_from_docs(page, heading, directory, **replaced):
    script = commands(page, heading)
    for old, new in replaced.items():
        script = script.replace(old, str(new))
    script = script.replace("pyrograph ", f"{BINARY} ").replace("./data", str(directory))
    done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_server_without_its_catalog_rebuilds_it_and_deletes_nothing(filled, how):
    filled.stop() if how == "stop" else filled.kill()
    shutil.rmtree(filled.directory / "catalog")
    filled.flags = RUTHLESS
    filled.start()
    # Pushes are accepted at once, even before the catalog is rebuilt.
    push_many(filled, 40, 5)
    wait_for("rebuilt catalog", lambda: len(safe_counts(filled)) >= 45)
    assert "the bucket holds data and no catalog" in filled.log()
    compared = filled.metric("pyrograph_metastore_reconciliations_total")
    wait_for("comparisons", lambda: filled.metric("pyrograph_metastore_reconciliations_total") >= compared + 4)
    time.sleep(3)
    check_whole(filled, 45)
    filled.stop()
    filled.start()
    check_whole(filled, 45)


def safe_counts(server):
    try:
        return counts(server)
    except AssertionError:
        return {}


def test_a_server_with_an_older_catalog_finds_the_missing_objects(filled, tmp_path):
    filled.stop()
    shutil.copytree(filled.directory / "catalog", tmp_path / "older")
    filled.start()
    push_many(filled, 40, 20)
    wait_for("merge", lambda: filled.metric("pyrograph_metastore_live_segments") == 0)
    filled.stop()
    shutil.rmtree(filled.directory / "catalog")
    shutil.copytree(tmp_path / "older", filled.directory / "catalog")
    filled.flags = RUTHLESS
    filled.start()
    wait_for("whole answer", lambda: len(safe_counts(filled)) == 60)
    wait_for("comparisons", lambda: filled.metric("pyrograph_metastore_reconciliations_total") >= 4)
    time.sleep(3)
    check_whole(filled, 60)


@pytest.mark.parametrize("damage", ["cut", "emptied", "removed"])
def test_a_damaged_catalog_is_refused_with_the_command_of_the_manual(filled, damage):
    filled.kill()
    commits = sorted((filled.directory / "catalog").rglob("commit/*"))
    commit = commits[len(commits) // 2]
    if damage == "removed":
        commit.unlink()
    else:
        commit.write_bytes(commit.read_bytes()[: -1 if damage == "cut" else 0])
    with pytest.raises(RuntimeError, match="server exited with 1"):
        filled.start()
    assert "pyrograph catalog rebuild -- FLAGS" in filled.log().splitlines()[-1]
    said = run_from_docs("operations.md", "### The catalog is damaged", filled.directory)
    assert "rebuilt the catalog" in said
    filled.start()
    check_whole(filled, 40)


def test_a_copy_of_a_directory_that_is_written_to_is_whole(tmp_path):
    server = Server(tmp_path / "data", *FAST)
    server.start()
    load = Load(server)
    try:
        wait_for("blocks", lambda: live_blocks(server) >= 2)
        for n in range(3):
            time.sleep(2)
            with load.lock:
                acknowledged = load.acknowledged
            copy = tmp_path / f"copy-{n}"
            run_from_docs("operations.md", "### Backup", server.directory, **{"/backup/pyrograph": copy})
            restored = Server(copy, *RUTHLESS)
            restored.start()
            try:
                wait_for("answer", lambda: safe_counts(restored))
                time.sleep(4)
                found = counts(restored)
                assert set(found.values()) == {1}
                assert len(found) >= acknowledged, f"copy {n}"
            finally:
                restored.kill()
    finally:
        total = load.stop()
    check_whole(server, total, len(load.threads))
    server.kill()


@pytest.mark.parametrize("order", ["block log publish catalog", "catalog publish log block"])
def test_a_copy_made_folder_by_folder_is_whole_in_any_order(tmp_path, order):
    server = Server(tmp_path / "data", *FAST)
    server.start()
    load = Load(server, clients=1)
    try:
        wait_for("blocks", lambda: live_blocks(server) >= 2)
        with load.lock:
            acknowledged = load.acknowledged
        copy = tmp_path / "copy"
        copy.mkdir()
        for folder in ["cluster", *order.split()]:
            subprocess.run(["cp", "-r", server.directory / folder, copy], check=False)
            merged = server.metric("pyrograph_metastore_jobs_published_total")
            wait_for("merge", lambda: server.metric("pyrograph_metastore_jobs_published_total") > merged)
    finally:
        load.stop()
        server.kill()
    restored = Server(copy, *RUTHLESS)
    restored.start()
    try:
        wait_for("answer", lambda: safe_counts(restored))
        time.sleep(4)
        found = counts(restored)
        assert set(found.values()) == {1}
        assert len(found) >= acknowledged
    finally:
        restored.kill()


@pytest.fixture
def store(tmp_path):
    if not seaweed.WEED.exists():
        pytest.skip(f"no {seaweed.WEED}; `make test` installs it")
    store = seaweed.Seaweed(tmp_path / "weed")
    store.start()
    yield store
    store.stop()


def on_bucket(directory, store, bucket=seaweed.BUCKET):
    flags = (*seaweed.flags(store.port), f"-storage.s3.bucket-name={bucket}", *FAST)
    return Server(directory, *flags)


def test_a_bucket_without_its_catalog_rebuilds_it(store, tmp_path):
    server = on_bucket(tmp_path / "data", store)
    server.start()
    try:
        load = Load(server)
        wait_for("blocks", lambda: live_blocks(server) >= 2)
        acknowledged = load.stop()
        server.kill()
        for key in store.keys("catalog/"):
            store.request("DELETE", key)
        server.start()
        wait_for("answer", lambda: len(safe_counts(server)) >= acknowledged)
        check_whole(server, acknowledged, len(load.threads))
    finally:
        server.kill()


def test_a_bucket_is_restored_from_its_versions_of_a_time_under_load(store, tmp_path):
    enabled = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    store.request("PUT", "", enabled, query={"versioning": ""})
    server = on_bucket(tmp_path / "data", store)
    # Dead objects are deleted within seconds, so that their versions are needed.
    server.flags += ("-metastore.sweep-grace=1s", "-compactor.sweep-interval=1s")
    server.start()
    load = Load(server)
    try:
        wait_for("blocks", lambda: live_blocks(server) >= 2)
        with load.lock:
            acknowledged = load.acknowledged
        # The times of versions are whole seconds.
        time.sleep(1.1)
        at = time.time()
        merged = server.metric("pyrograph_metastore_jobs_published_total")
        wait_for("merges", lambda: server.metric("pyrograph_metastore_jobs_published_total") > merged + 2)
    finally:
        load.stop()
        server.kill()
    newest = {}
    for version in store.versions():
        modified = datetime.datetime.fromisoformat(version["LastModified"].replace("Z", "+00:00")).timestamp()
        if modified <= at and modified >= newest.get(version["Key"], (0,))[0]:
            newest[version["Key"]] = (modified, version)
    store.request("PUT", "", bucket="restored")
    for key, (_, version) in newest.items():
        if version["tag"] == "Version":
            body = store.request("GET", key, query={"versionId": version["VersionId"]})
            store.request("PUT", key, body, bucket="restored")
    restored = on_bucket(tmp_path / "restored", store, "restored")
    restored.start()
    try:
        wait_for("answer", lambda: len(safe_counts(restored)) >= acknowledged)
        assert set(counts(restored).values()) == {1}
    finally:
        restored.kill()
