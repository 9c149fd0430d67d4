"""Deleted profiles are gone: from answers at once, from the bucket after the rewrite and the grace period."""

import io
import json
import pathlib
import subprocess
import time

import pyarrow as arrow
from harness import BINARY, now_millis, pprof, push

# Shortest times: merges start at once, dead objects and old files of the catalog stay for seconds.
QUICK = (
    "-self-profiling.disable-push",
    "-metastore.merge-after=1s",
    "-metastore.sweep-grace=4s",
    "-metastore.dedup-window=1s",
    "-metastore.dedup-slack=1s",
    "-metastore.probe-interval=200ms",
)
ZSTD = bytes.fromhex("28b52ffd")


def inflated(data):
    """The bytes themselves, and the content of each zstd frame in them."""
    yield data
    at = data.find(ZSTD)
    while at >= 0:
        try:
            with arrow.CompressedInputStream(arrow.BufferReader(data[at:]), "zstd") as stream:
                out = io.BytesIO()
                while part := stream.read(1 << 16):
                    out.write(part)
                yield out.getvalue()
        except OSError:
            # Not the beginning of a frame, or other bytes than frames follow.
            yield out.getvalue()
        at = data.find(ZSTD, at + 1)


def files_with(directory, *texts):
    """{text: names of the files of the bucket that contain it}."""
    found = {text: set() for text in texts}
    for path in pathlib.Path(directory).rglob("*"):
        if not path.is_file():
            continue
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue
        for part in inflated(data):
            for text in texts:
                if text.encode() in part:
                    found[text].add(str(path.relative_to(directory)))
    return found


def admin(server, *arguments):
    command = [BINARY, "admin", *arguments, "--url", server.url]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def deletions(server):
    status, body = server.get("/api/v1/delete")
    assert status == 200, body
    return json.loads(body)["orders"]


def wait_for(condition, seconds=90):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.3)
    return value


def test_deleted_profiles_are_gone_from_answers_at_once_and_from_the_bucket_soon(new_server):
    server = new_server(*QUICK)
    secret, name = "zebra-7f3a9c", "Quokka_5d21_render"
    gone, kept = '{service_name="gone"}', '{service_name="kept"}'
    for i in range(6):
        when = time.time_ns() - i * 1_000_000_000
        labels = {"service_name": "gone", "pod": secret}
        assert push(server, labels, pprof({(name, "main"): 5 + i}, time_nanos=when))[0] == 200
        other = {"service_name": "kept", "pod": "okapi-1"}
        assert push(server, other, pprof({("Numbat_88_render", "main"): 7 + i}, time_nanos=when))[0] == 200
    # Some profiles are in blocks, and some are not merged yet.
    wait_for(lambda: list(pathlib.Path(server.directory).glob("block/**/*")))
    late = {"service_name": "gone", "pod": secret}
    assert push(server, late, pprof({(name, "main"): 100}))[0] == 200
    before = server.flamegraph(kept)
    assert server.total(gone) == 145
    held = files_with(server.directory, secret, name, "gone")
    assert all(any(f.startswith("block/") for f in files) for files in held.values()), held
    assert any(f.startswith("catalog/") for f in held["gone"]), "service names are in the catalog"

    trial = admin(server, "delete", "--selector", gone, "--from", "now-1h", "--dry-run")
    assert trial.returncode == 0 and "7 profiles of 1 services" in trial.stdout, trial
    assert deletions(server) == [] and server.total(gone) == 145
    unsure = admin(server, "delete", "--selector", gone, "--from", "now-1h")
    assert unsure.returncode != 0 and "--yes" in unsure.stderr and server.total(gone) == 145

    done = admin(server, "delete", "--selector", gone, "--from", "now-1h", "--until", str(now_millis() + 60_000), "--yes")
    assert done.returncode == 0, done
    assert server.total(gone) == 0
    window = {"start": now_millis() - 3_600_000, "end": now_millis() + 60_000}
    services = server.rpc("querier.v1.QuerierService/LabelValues", name="service_name", **window)
    pods = server.rpc("querier.v1.QuerierService/LabelValues", name="pod", **window)
    series = server.rpc("querier.v1.QuerierService/Series", labelNames=["service_name", "pod"], **window)
    assert services["names"] == ["kept"] and pods["names"] == ["okapi-1"]
    assert secret not in json.dumps(series)
    assert server.flamegraph(kept) == before

    began = time.monotonic()
    wait_for(lambda: deletions(server)[0]["state"] == "finished")
    print(f"finished after {time.monotonic() - began:.1f} s")
    left = files_with(server.directory, secret, name, "gone", "okapi-1")
    assert left[secret] == left[name] == left["gone"] == set(), left
    assert left["okapi-1"], "the search finds existing profiles"
    assert server.flamegraph(kept) == before
    assert "finished" in admin(server, "deletes").stdout

    # Later profiles are kept, and a restart brings no deleted one back.
    assert push(server, late, pprof({("main",): 3}))[0] == 200
    assert server.stop() == 0
    server.start()
    assert server.total(gone) == 3 and server.flamegraph(kept) == before


def test_deletions_without_matches_do_not_block_others(server):
    assert push(server, {"service_name": "app"}, pprof({("main",): 3}))[0] == 200

    def delete(service):
        body = {"selector": f'{{service_name="{service}"}}', "start": 0, "end": 4_000_000_000_000}
        return server.post("/api/v1/delete", json.dumps(body).encode(), {"Content-Type": "application/json"})[0]

    answers = [delete(f"nobody-{i}") for i in range(220)]
    assert answers.count(200) >= 200 and set(answers) <= {200, 429}
    assert delete("app") == 200
    assert server.total('{service_name="app"}') == 0


def test_an_invalid_deletion_is_refused(server):
    def refused(body, headers=None):
        headers = {"Content-Type": "application/json", **(headers or {})}
        status, answer = server.post("/api/v1/delete", json.dumps(body).encode(), headers)
        assert status == 400, (status, answer)
        return json.loads(answer)["message"]

    assert "at least one matcher" in refused({"selector": "{}", "start": 0, "end": 1})
    assert "not after" in refused({"selector": '{a="b"}', "start": 1, "end": 1})
    assert "selector" in refused({"selector": '{a="b"', "start": 0, "end": 1})
    assert "unknown field" in refused({"selector": '{a="b"}', "start": 0, "end": 1, "dryrun": True})
    assert admin(server, "delete", "--selector", '{a="b"}', "--from", "yesterday", "--yes").returncode != 0
    assert deletions(server) == []
