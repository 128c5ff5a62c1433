"""A gateway of moods: it answers each request as it was told, or cuts the connection."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.raw_server import RawServer, Request, answer, read_request

# Some answers name the message that was posted last.
Answer = bytes | Callable[[str], bytes]
CUT = b""  # the request was read, and no answer comes


def said(status: int, body: Any, **headers: str) -> bytes:
    return answer(status, json.dumps(body).encode(), Content_Type="application/json", **headers)


def refusal(status: int, code: str, **headers: str) -> bytes:
    return said(status, {"error": {"code": code, "message": "Not now."}}, **headers)


def receipt(message_id: str = "m-1", status: str = "delivered", **members: Any) -> bytes:
    recipients = [{"address": "bob@acme.test", "status": status}]
    answered = {"message_id": message_id, "status": status, "recipients": recipients, **members}
    return said(200 if "reply" in members else 202, answered)


def reply(asked: str, message_id: str = "r-1", **members: Any) -> dict[str, Any]:
    message = {"message_id": message_id, "sender": "bob@acme.test", "in_reply_to": asked, "payload": "yes"}
    return message | {"sender_verification": "pass"} | members


def page(*messages: Any) -> bytes:
    return said(200, {"messages": list(messages), "has_more": False})


@dataclass
class Moody:
    """`posts` answers messages and files, `looks` what is asked of the inbox or a file; the last one stays."""

    posts: list[Answer]
    looks: list[Answer]
    acknowledges: bool = True
    requests: list[Request] = field(default_factory=list)
    message_id: str = ""
    url: str = ""

    @property
    def acknowledged(self) -> list[str]:
        bodies = [json.loads(each.body) for each in self.requests if each.line.split()[1].endswith("/ack")]
        return [name["message_id"] for body in bodies for name in body["message_ids"]]

    @property
    def posted(self) -> list[Request]:
        return [each for each in self.requests if each.line.startswith("POST /v1/messages ")]

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_request(reader)
            self.requests.append(request)
            answered = self._answer(request)
            if answered == CUT:
                return
            writer.write(answered)
            await writer.drain()

    def _answer(self, request: Request) -> bytes:
        if request.line.startswith("POST /v1/messages "):
            self.message_id = json.loads(request.body).get("message_id", "m-1")
            return self._next(self.posts)
        if request.line.startswith("GET "):
            return self._next(self.looks)
        if request.line.startswith("POST /v1/attachments?"):
            return self._next(self.posts)
        names = json.loads(request.body).get("message_ids", ())
        return (
            CUT
            if not self.acknowledges
            else said(200, {"results": [{"status": "acknowledged"} for _ in names]})
        )

    def _next(self, answers: list[Answer]) -> bytes:
        following = answers.pop(0) if len(answers) > 1 else answers[0]
        return following if isinstance(following, bytes) else following(self.message_id)


@asynccontextmanager
async def moody(*posts: Answer, looks: Sequence[Answer] = (page(),)) -> AsyncIterator[Moody]:
    script = Moody(list(posts), list(looks))
    async with RawServer(script) as server:
        script.url = f"http://127.0.0.1:{server.port}"
        yield script
