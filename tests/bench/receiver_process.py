"""A webhook that takes everything, in a process of its own: `python -m tests.bench.receiver_process CERTIFICATE KEY`.

Says its port when it is ready, and ends on SIGTERM. It does as little as it can: what is measured is the gateway.
"""

import asyncio
import json
import re
import signal
import ssl
import sys

import uvloop

HOST = "127.0.0.1"
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 21\r\n\r\n"
    + b'{"status":"accepted"}'
)
_LENGTH = re.compile(rb"\r\nContent-Length: ([0-9]+)\r\n")


class Receiver(asyncio.Protocol):
    """One connection; requests follow one another on it."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._buffer, 0, end + 2)
            size = end + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < size:
                return
            del self._buffer[:size]
            self._transport.write(ANSWER)  # type: ignore[attr-defined] # uvloop's transport is one without saying so


async def serve(certificate: str, key: str) -> None:
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, key)
    server = await loop.create_server(Receiver, HOST, 0, ssl=context)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await over.wait()


if __name__ == "__main__":
    uvloop.run(serve(*sys.argv[1:]))
