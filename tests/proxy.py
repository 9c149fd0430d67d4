"""A proxy in front of one port that injects the faults of networks and stores."""

import asyncio
import collections
import random
import threading

from harness import free_port

METHODS = {b"GET ": "GET", b"PUT ": "PUT", b"POST": "POST", b"HEAD": "HEAD", b"DELE": "DELETE"}


class Proxy:
    """Passes connections on; with `tls`, an `ssl.SSLContext`, it is reached by HTTPS. `mode` is the treatment of new
    connections, and of the bytes of all connections:

    pass · refuse (closed at once) · unavailable (503 SlowDown) · slow (every piece waits) · cut (closed at a random
    point) · hold (silently delays all bytes, in both directions, until the next mode).
    """

    def __init__(self, upstream, tls=None, host="127.0.0.1", port=None):
        self.upstream, self.host, self.port, self.tls = upstream, host, port or free_port(), tls
        self._mode = "pass"
        # HTTP/1.1 requests passed on, by method.
        self.requests = collections.Counter()
        self.loop, self.open = asyncio.new_event_loop(), set()
        up = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(up,), daemon=True)
        self.thread.start()
        assert up.wait(10), f"nothing can listen at {host}:{self.port}"

    def set(self, mode):
        """Sets the mode. Drops open connections, so that the mode applies to every request, except around `hold`."""

        def change():
            drops = "hold" not in (mode, self._mode)
            self._mode = mode
            for writer in list(self.open) if drops else []:
                writer.transport.abort()

        self.loop.call_soon_threadsafe(change)

    def close(self):
        self.set("refuse")

        def end():
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.call_later(0.2, self.loop.stop)

        self.loop.call_soon_threadsafe(end)
        self.thread.join(10)

    def _run(self, up):
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(asyncio.start_server(self._serve, self.host, self.port, ssl=self.tls))
        up.set()
        self.loop.run_forever()

    async def _serve(self, reader, writer):
        self.open.add(writer)
        try:
            await self._held()
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
                await asyncio.gather(self._pipe(reader, up_writer, self.requests), self._pipe(up_reader, writer))
            finally:
                self.open.discard(up_writer)
                up_writer.transport.abort()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass
        finally:
            self.open.discard(writer)
            writer.close()

    async def _pipe(self, reader, writer, requests=None):
        while piece := await reader.read(1 << 16):
            # A client waits for an answer before its next request, so each request begins a piece.
            if requests is not None and piece[:4] in METHODS:
                requests[METHODS[piece[:4]]] += 1
            if self._mode == "slow":
                await asyncio.sleep(random.uniform(0.1, 0.5))
            if self._mode == "cut" and random.random() < 0.1:
                raise ConnectionResetError
            await self._held()
            writer.write(piece)
            await writer.drain()
        await self._held()
        writer.transport.abort()

    async def _held(self):
        while self._mode == "hold":
            await asyncio.sleep(0.05)
