"""The first start of a server: the error of each mistake explains itself."""

import os
import re
import subprocess
import time

import pytest
from harness import BINARY, CPU, free_port

OWN_FUNCTION = re.compile(r"\b(pyrograph|edge|distributor|ingester|metastore|querier|storage|block)::")


def refused(*flags, **options):
    """The log of a server that must not start."""
    run = subprocess.run([BINARY, "server", *flags], capture_output=True, text=True, timeout=20, **options)
    assert run.returncode == 1, run.stderr
    return run.stderr


def test_a_second_server_on_the_port_names_the_port_and_the_flag(server, tmp_path):
    text = refused(f"-server.http-listen-port={server.port}", "-server.http-listen-address=127.0.0.1", f"-storage.filesystem.dir={tmp_path}/other")
    assert f"cannot listen on 127.0.0.1:{server.port}" in text
    assert "Another program has that port" in text and "-server.http-listen-port" in text
    assert not (tmp_path / "other").exists(), "nothing is opened before the port is ours"


def test_a_second_server_on_the_directory_names_the_first(server):
    text = refused(f"-server.http-listen-port={free_port()}", f"-storage.filesystem.dir={server.directory}")
    assert f"is in use by process {server.process.pid}" in text and "-storage.filesystem.dir" in text


@pytest.mark.parametrize("kind", ["file", "no permission"])
def test_a_directory_that_cannot_be_used_is_named_with_its_flag(tmp_path, kind):
    directory, options = tmp_path / "data", {}
    if kind == "file":
        directory.write_text("")
    else:
        tmp_path.chmod(0o555)
        if os.geteuid() == 0:
            # Root may write everywhere, and its temporary directories are not accessible to others.
            directory, options = "/pyrograph-data", {"user": 65534, "group": 65534, "extra_groups": []}
            if not os.access(BINARY, os.X_OK):
                pytest.skip("the binary cannot be started by another user")
    text = refused(f"-server.http-listen-port={free_port()}", f"-storage.filesystem.dir={directory}", **options)
    assert f'cannot use directory "{directory}"' in text and "-storage.filesystem.dir" in text


def test_a_flame_graph_of_the_server_itself_exists_within_a_minute_of_the_start(new_server):
    server = new_server()
    end, stacks, names = time.monotonic() + 45, [], set()
    while not stacks:
        assert time.monotonic() < end, f"no stack of the server's own: {sorted(names)[:50]}"
        time.sleep(0.5)
        graph = server.flamegraph('{service_name="pyrograph"}', CPU)
        names = {name for path in graph for name in path}
        stacks = [path for path in graph if len(path) > 5 and any(OWN_FUNCTION.search(name) for name in path)]
    mangled = [name for name in names if re.search(r"^_ZN|^_R|::h[0-9a-f]{16}$", name)]
    assert not mangled, mangled
