"""A request that a gateway provably took: it asked for the body, and has not got it yet."""

import asyncio
import json
from typing import Self

from tests.faults.ledger import Line
from tests.faults.processes import Account

PATIENCE_SECONDS = 20.0
LOOK_SECONDS = 0.01


class Taken:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> None:
        self._reader = reader
        self._writer = writer
        self._body = body

    @classmethod
    async def by(cls, port: int, sender: Account, recipient: Account, serial: int) -> Self:
        message = {
            "sender": sender.address,
            "recipients": [recipient.address],
            "payload": {"serial": serial},
        }
        body = json.dumps(message).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = {**sender.headers, "Host": "acme.test", "Content-Length": str(len(body))}
        lines = [f"{name}: {value}" for name, value in {**head, "Expect": "100-continue"}.items()]
        writer.write("\r\n".join(["POST /v1/messages HTTP/1.1", *lines, "\r\n"]).encode())
        invited = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_SECONDS)
        assert invited.startswith(b"HTTP/1.1 100 "), invited
        return cls(reader, writer, body)

    async def finish(self) -> Line:
        """Sends the body and returns what was acknowledged."""
        self._writer.write(self._body)
        answer = await asyncio.wait_for(self._reader.read(), PATIENCE_SECONDS)
        self._writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 202 "), answer
        assert b"connection: close" in head.lower()
        message = json.loads(self._body)
        (recipient,) = message["recipients"]
        return Line(recipient, json.loads(body)["message_id"], message["payload"]["serial"])


async def nobody_listens(port: int) -> None:
    """Until a new connection is refused."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                return
            except ConnectionResetError:  # it waited to be accepted when the listener closed
                continue
            writer.close()
            await asyncio.sleep(LOOK_SECONDS)
