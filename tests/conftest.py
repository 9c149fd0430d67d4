import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from harness import Server  # noqa: E402

# No limits on rates, ages or spans: these tests push much, and old profiles.
UNLIMITED = (
    "-validation.reject-older-than=0",
    "-validation.reject-newer-than=0",
    "-distributor.ingestion-rate-limit-mb=100000",
    "-distributor.ingestion-burst-size-mb=100000",
)


@pytest.fixture
def new_server(tmp_path):
    """Makes servers, and stops those that still run."""
    made = []

    def make(*flags, start=True):
        server = Server(tmp_path / f"data{len(made)}", *UNLIMITED, *flags)
        made.append(server)
        if start:
            server.start()
        return server

    yield make
    for server in made:
        if server.process and server.process.poll() is None:
            server.kill()


@pytest.fixture
def server(new_server):
    """A fresh server of one process with default settings, without its own profile."""
    return new_server("-self-profiling.disable-push")


@pytest.fixture
def disk(tmp_path):
    """A file system of 24 MiB."""
    at = tmp_path / "disk"
    at.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", at], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield at
    subprocess.run(["umount", "-l", at], check=True)
