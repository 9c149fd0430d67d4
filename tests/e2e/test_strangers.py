"""Protection against strangers, other users of the computer and broken stores: secrets, terminals, partial answers."""

import json
import os
import pathlib
import re
import subprocess
import time

import pytest
from harness import BINARY, CPU, free_port, pprof, push

NO_MERGES = ("-self-profiling.disable-push", "-metastore.merge-after=1h")


def run(server, *arguments):
    """(exit code, standard output, standard error) of the `pyrograph` command."""
    done = subprocess.run([BINARY, *arguments, "--url", server.url], capture_output=True, timeout=60)
    return done.returncode, done.stdout, done.stderr.decode()


def test_passwords_and_signatures_of_urls_are_shown_nowhere(new_server):
    server = new_server(
        "-self-profiling.disable-push",
        "-log.level=debug",
        "-storage.s3.endpoint=user:hush@127.0.0.1:1",
        "-storage.azure.endpoint=https://127.0.0.1:1/account?sv=1&sig=hush",
        "-storage.gcs.http.proxy-url=http://user:hush@127.0.0.1:1",
    )
    for path in ["/api/v1/status/config", "/api/v1/status/config/diff"]:
        status, shown = server.get(path)
        assert status == 200 and b"hush" not in shown, shown
        assert shown.count(b"********@127.0.0.1:1") == 2 and b"https://127.0.0.1:1/account?********" in shown, shown
    assert "hush" not in server.log()


@pytest.mark.parametrize(
    "flags, words",
    [
        (["-storage.s3.endpoint=http://user:hush@127.0.0.1:1/?sig=hush"], "127.0.0.1:1"),
        (["-storage.s3.endpoint=http://127.0.0.1:1", "-storage.s3.http.proxy-url=http://user:hush@127.0.0.1:1"], "127.0.0.1:1"),
        (["-storage.s3.endpoint=http://127.0.0.1:1", "-storage.s3.http.proxy-url=http://user:hush@["], "cannot open storage"),
    ],
)
def test_a_store_that_cannot_be_reached_is_named_without_its_password(tmp_path, flags, words):
    done = subprocess.run(
        [
            BINARY, "server", f"-server.http-listen-port={free_port()}", "-server.http-listen-address=127.0.0.1", "-log.level=debug",
            "-storage.backend=s3", "-storage.s3.bucket-name=b", "-storage.s3.access-key-id=a", "-storage.s3.secret-access-key=hush",
            *flags,
        ],
        capture_output=True, text=True, timeout=60, cwd=tmp_path,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 1 and "hush" not in said and words in said, said


def gone(server, count):
    """Stops the server, removes `count` segments, and starts it again, so that none of them is in memory."""
    assert server.stop() == 0
    segments = sorted(path for path in pathlib.Path(server.directory, "log").rglob("*") if path.is_file() and path.stat().st_size > 500)
    for path in segments[:count]:
        path.unlink()
    server.start()


QUERIES = [
    ["top", "-q", "{}"],
    ["top", "-q", "{}", "--output", "json"],
    ["top", "-q", "{}", "--output", "pprof"],
    ["top", "-q", "{}", "--output", "folded"],
    ["top", "-q", "{}", "--explain"],
    ["flamegraph", "-q", "{}"],
    ["series", "-q", "{}"],
    ["series", "-q", "{}", "--output", "json"],
    ["labels", "-q", '{pod!=""}'],
    ["labels", "pod", "-q", '{pod!=""}', "--output", "json"],
]


def test_the_command_line_reports_missing_objects(new_server):
    server = new_server(*NO_MERGES)
    for service in ["one", "two"]:
        assert push(server, {"service_name": service, "pod": "p"}, pprof({("main",): 30}))[0] == 200
    for query in QUERIES:
        code, out, errors = run(server, "query", *query)
        assert (code, errors) == (0, "") and out, query
    gone(server, 1)
    for query in QUERIES:
        code, out, errors = run(server, "query", *query)
        assert code == 3 and out, (query, errors)
        assert re.fullmatch(r"warning: the answer is partial: 1 objects could not be read, .*; log/.*\n", errors), errors
        if "json" in query or "--explain" in query:
            json.loads(out)
    gone(server, 9)
    for query in QUERIES:
        code, out, errors = run(server, "query", *query)
        assert code == 1 and not out and "none of 2 objects could be read" in errors, (query, errors)
    status, body = server.get(f"/pyroscope/render?query={CPU}%7B%7D&from=now-1h")
    assert status == 503 and b"none of 2 objects" in body, body


def test_control_characters_in_names_do_not_reach_a_terminal(server):
    forged = "work\x1b[2J\x1b]0;title\x07\n total 99 s\r\x9b31m\u202e"
    pod = "pod\x1b[31m\nforged"
    assert push(server, {"service_name": "shop", "pod": pod}, pprof({(forged, "main"): 30}))[0] == 200
    assert run(server, "admin", "delete", "--selector", '{service_name="\x1b[31m"}', "--from", "now-1h", "--yes")[0] == 0
    for command in [
        ["query", "top", "-q", "{}"],
        ["query", "top", "-q", "{}", "--output", "folded"],
        ["query", "flamegraph", "-q", "{}"],
        ["query", "series", "-q", "{}", "--by", "pod"],
        ["query", "labels", "-q", "{}"],
        ["query", "labels", "pod", "-q", "{}"],
        ["admin", "delete", "--selector", '{service_name="shop"}', "--from", "now-1h", "--dry-run"],
        ["admin", "deletes"],
    ]:
        code, out, errors = run(server, *command)
        out = out.decode()
        assert code == 0 and not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", out + errors), (command, out)
        assert "\n total 99" not in out and "\nforged" not in out, (command, out)
    code, out, _ = run(server, "query", "top", "-q", "{}", "--output", "json")
    assert code == 0 and forged in json.loads(out)["flamegraph"]["names"]
    dot = server.get(f"/pyroscope/render?query={CPU}%7B%7D&from=now-1h&format=dot")[1].decode()
    assert "work" in dot and not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", dot), dot
    deletions = run(server, "admin", "deletes")[1].decode()
    assert time.strftime("%Y-%m-%d ", time.gmtime()) in deletions and r"\x1b" in deletions, deletions


def test_other_users_of_the_computer_cannot_read_files(new_server):
    server = new_server("-self-profiling.disable-push")
    assert push(server, {"service_name": "shop"}, pprof({("main",): 30}))[0] == 200
    assert server.stop() == 0
    made = [pathlib.Path(server.directory), *pathlib.Path(server.directory).rglob("*")]
    assert len(made) > 5
    for path in made:
        assert path.stat().st_mode & 0o777 == (0o750 if path.is_dir() else 0o640), (path, oct(path.stat().st_mode))


def test_a_server_on_a_public_address_logs_a_warning(new_server):
    warning = "listening on every network interface, without any login"
    assert warning not in new_server("-self-profiling.disable-push").log()
    server = new_server("-self-profiling.disable-push", "-server.http-listen-address=")
    assert warning in server.log() and "-server.http-listen-address=127.0.0.1" in server.log()
    # Every host name is accepted, unless names are listed.
    assert server.get("/ready", {"Host": "pyrograph.example"})[0] == 200
    server.kill()
    server.flags = (*server.flags, "-server.allowed-hosts=pyrograph.example,other.example")
    server.start()
    assert server.get("/ready", {"Host": "pyrograph.example"})[0] == 200
    assert server.get("/ready", {"Host": "evil.example"})[0] == 403


def test_lists_of_origins_and_hosts_are_checked_before_a_start():
    for flag, words in [
        ("-server.cors-allowed-origins=grafana.example", "-server.cors-allowed-origins: origin \"grafana.example\" is not"),
        ("-server.allowed-hosts=https://a", "-server.allowed-hosts: host \"https://a\" is not"),
    ]:
        done = subprocess.run([BINARY, "config", "check", "--", flag], capture_output=True, text=True, timeout=60, env=os.environ)
        assert done.returncode == 1 and words in done.stderr, done.stderr
