"""A real S3 server, SeaweedFS, and a proxy before it that does to requests what networks and stores do."""

import asyncio
import json
import os
import pathlib
import random
import subprocess
import threading
import urllib.error
import urllib.request

from harness import ROOT, free_port

WEED = pathlib.Path(os.environ.get("PYROGRAPH_WEED", ROOT / ".venv/bin/weed"))
BUCKET, KEY, SECRET = "test", "pyrograph", "pyrograph-secret"


def low_port():
    """SeaweedFS listens 10,000 above each of its ports as well."""
    while (port := free_port()) >= 55_000:
        pass
    return port


class Seaweed:
    """One SeaweedFS on a directory, which outlives its process."""

    def __init__(self, directory):
        self.directory, self.process = directory, None
        self.port = low_port()
        self.filer = low_port()
        self.others = [f"-{name}.port={low_port()}" for name in ("master", "volume", "webdav", "admin")]
        directory.mkdir()

    def start(self):
        self.process = subprocess.Popen(
            [WEED, "mini", f"-dir={self.directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-admin.ui=false"]
            + [f"-bucket={BUCKET}", f"-s3.port={self.port}", f"-filer.port={self.filer}", *self.others],
            env={**os.environ, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()

    def keys(self, folder):
        """Every key of the bucket below `folder`, as the filer sees it."""
        found, folders = [], [folder]
        while folders:
            folder, last = folders.pop(), ""
            while True:
                url = f"http://127.0.0.1:{self.filer}/buckets/{BUCKET}/{folder}/?limit=1000&lastFileName={last}"
                request = urllib.request.Request(url, headers={"Accept": "application/json"})
                try:
                    with urllib.request.urlopen(request, timeout=30) as response:
                        page = json.load(response)
                except urllib.error.HTTPError as error:
                    if error.code == 404:
                        break
                    raise
                for entry in page["Entries"] or []:
                    key = entry["FullPath"].removeprefix(f"/buckets/{BUCKET}/")
                    (folders if entry["Mode"] & 0o20000000000 else found).append(key)
                if not page.get("ShouldDisplayLoadMore"):
                    break
                last = page["LastFileName"]
        return found


def flags(port):
    """Of a server that keeps its objects in the bucket behind `port`."""
    return (
        "-storage.backend=s3",
        f"-storage.s3.endpoint=127.0.0.1:{port}",
        f"-storage.s3.bucket-name={BUCKET}",
        "-storage.s3.region=us-east-1",
        f"-storage.s3.access-key-id={KEY}",
        f"-storage.s3.secret-access-key={SECRET}",
        "-storage.s3.insecure",
        "-storage.s3.force-path-style",
    )


class Proxy:
    """Passes connections on; with `tls`, an `ssl.SSLContext`, it is reached by HTTPS. `mode` is what happens to those
    that come from now on, and to the bytes of all:

    pass · refuse (closed at once) · unavailable (503 SlowDown) · slow (every piece waits) · cut (closed somewhere).
    """

    def __init__(self, upstream, tls=None):
        self.upstream, self.port, self._mode, self.tls = upstream, free_port(), "pass", tls
        self.loop, self.open = asyncio.new_event_loop(), set()
        up = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(up,), daemon=True)
        self.thread.start()
        up.wait()

    def set(self, mode):
        """Connections that are open are dropped, so that the mode holds for every request."""

        def change():
            self._mode = mode
            for writer in list(self.open):
                writer.transport.abort()

        self.loop.call_soon_threadsafe(change)

    def close(self):
        self.set("refuse")

        def end():
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.call_later(0.2, self.loop.stop)

        self.loop.call_soon_threadsafe(end)
        self.thread.join()

    def _run(self, up):
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls))
        up.set()
        self.loop.run_forever()

    async def _serve(self, reader, writer):
        self.open.add(writer)
        try:
            if self._mode == "refuse":
                return
            if self._mode == "unavailable":
                await reader.readuntil(b"\r\n\r\n")
                body = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
                head = f"HTTP/1.1 503 Slow Down\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                writer.write(head.encode() + body)
                await writer.drain()
                return
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
            self.open.add(up_writer)
            try:
                await asyncio.gather(self._pipe(reader, up_writer), self._pipe(up_reader, writer))
            finally:
                self.open.discard(up_writer)
                up_writer.transport.abort()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self.open.discard(writer)
            writer.close()

    async def _pipe(self, reader, writer):
        while piece := await reader.read(1 << 16):
            if self._mode == "slow":
                await asyncio.sleep(random.uniform(0.1, 0.5))
            if self._mode == "cut" and random.random() < 0.1:
                raise ConnectionResetError
            writer.write(piece)
            await writer.drain()
        writer.transport.abort()
