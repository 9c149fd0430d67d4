"""Azure Blob Storage, on its emulator: the trial at the start, a push, a query, a restart."""

import base64
import hashlib
import hmac
import os
import subprocess
import time
import urllib.request
from email.utils import formatdate

import pytest
from harness import free_port, pprof, push

AZURITE = os.environ.get("PYROGRAPH_AZURITE")  # azurite-blob of npm's azurite 3.37
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def attempt(request, patience=30):
    until = time.monotonic() + patience
    while True:
        try:
            return urllib.request.urlopen(request, timeout=5).read()
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.2)


@pytest.fixture
def emulator(tmp_path):
    started = []

    def start(*command):
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path))

    yield start
    for process in started:
        process.kill()
        process.wait()


def works(new_server, *flags):
    server = new_server("-self-profiling.disable-push", "-metastore.merge-after=1s", *flags)
    for value in (3, 4):
        assert push(server, {"service_name": "app"}, pprof({("main",): value}))[0] == 200
    time.sleep(3)
    assert server.total("{}") == 7
    server.kill()
    server.start()
    assert server.total("{}") == 7


@pytest.mark.skipif(not AZURITE, reason="PYROGRAPH_AZURITE does not name azurite-blob")
def test_azure_blob_storage(new_server, emulator):
    port = free_port()
    emulator(AZURITE, "--silent", "--inMemoryPersistence", "--skipApiVersionCheck", "--blobPort", str(port))
    date = formatdate(usegmt=True)
    signed = f"PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:2021-08-06\n/{ACCOUNT}/{ACCOUNT}/profiles\nrestype:container"
    signature = base64.b64encode(hmac.digest(base64.b64decode(ACCOUNT_KEY), signed.encode(), hashlib.sha256)).decode()
    url = f"http://127.0.0.1:{port}/{ACCOUNT}"
    headers = {"x-ms-date": date, "x-ms-version": "2021-08-06", "Authorization": f"SharedKey {ACCOUNT}:{signature}"}
    attempt(urllib.request.Request(f"{url}/profiles?restype=container", method="PUT", headers=headers))
    works(
        new_server, "-storage.backend=azure", f"-storage.azure.endpoint={url}", f"-storage.azure.account-name={ACCOUNT}",
        f"-storage.azure.account-key={ACCOUNT_KEY}", "-storage.azure.container-name=profiles",
    )
