"""Programs written for amtp-python-sdk meet this gateway in development mode, and run unchanged.

`Program` asks what that library asks, in its order and with its quirks: /health first, a registration without a key at
every start, ids and keys that are UUIDv4, members left out where they are empty, an inbox that is polled, each message
acknowledged after its reply, and the agent deleted at every stop. It takes 200, 201 and 202 for success, and answers
in JSON alone.
"""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from tests.world import Gateway, World

Handle = Callable[[dict[str, Any]], dict[str, Any] | None]


class Failed(Exception):
    """The library raises here, and the program ends."""


@dataclass
class Program:
    """An agent as the library runs it; `name` has no domain until the gateway says which."""

    url: str
    name: str
    session: aiohttp.ClientSession
    schemas: list[str] = field(default_factory=list)
    key: str | None = None
    address: str = ""
    seen: list[dict[str, Any]] = field(default_factory=list)

    async def start(self) -> None:
        await self.ask("GET", "/health")
        wanted = {"address": self.name, "delivery_mode": "pull"}
        if self.schemas:
            wanted["supported_schemas"] = self.schemas  # type: ignore[assignment]
        agent = (await self.ask("POST", "/v1/admin/agents", wanted))["agent"]
        self.key, self.address = agent["api_key"], agent["address"]

    async def stop(self) -> None:
        await self.ask("DELETE", f"/v1/admin/agents/{self.address.split('@')[0]}")
        self.key = None

    async def send(self, *recipients: str, **members: Any) -> str:
        message = {
            "version": "1.0",
            "message_id": str(uuid4()),
            "idempotency_key": str(uuid4()),
            "timestamp": datetime.now(UTC).isoformat(),
            "sender": self.address,
            "recipients": list(recipients),
            **{name: value for name, value in members.items() if value},
        }
        answer = await self.ask("POST", "/v1/messages", message)
        return str(answer.get("message_id", message["message_id"]))

    async def poll(self, handle: Handle) -> None:
        """One round: fetch, and for each message handle, reply, acknowledge."""
        page = await self.ask("GET", f"/v1/inbox/{self.address}", query={"limit": 10})
        for message in page["messages"] or []:
            datetime.fromisoformat(message["timestamp"].replace("Z", "+00:00"))
            for address in (message["sender"], *message["recipients"]):
                assert address.count("@") == 1
            self.seen.append(message)
            response = handle(message)
            if response:
                subject = f"Re: {message.get('subject') or 'Message'}"
                replied = {"subject": subject, "payload": response, "in_reply_to": message["message_id"]}
                await self.send(message["sender"], **replied)
            await self.ask("DELETE", f"/v1/inbox/{self.address}/{message['message_id']}")

    async def ask(self, method: str, path: str, body: Any = None, query: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        async with self.session.request(
            method, self.url + path, json=body, params=query, headers=headers
        ) as answer:
            if answer.status not in (200, 201, 202):
                raise Failed(f"{method} {path}: {answer.status} {await answer.text()}")
            assert answer.content_type == "application/json"
            return await answer.json()


@pytest.fixture
async def gateway(world: World) -> AsyncIterator[Gateway]:
    async with world.gateway(("localhost",), development=True) as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


async def test_two_programs_talk_without_being_given_a_key(
    gateway: Gateway, session: aiohttp.ClientSession
) -> None:
    asker, helper = Program(gateway.url, "asker", session), Program(gateway.url, "helper", session)
    await asker.start()
    await helper.start()
    assert helper.address == "helper@localhost"
    question = await asker.send(helper.address, subject="Hello", payload={"question": "How are you?"})
    await helper.poll(lambda message: {"answer": f"Fine, {message['sender']}"})
    await helper.poll(lambda _: pytest.fail("it was acknowledged"))
    await asker.poll(lambda _: None)
    (answer,) = asker.seen
    assert (answer["subject"], answer["in_reply_to"]) == ("Re: Hello", question)
    assert answer["payload"] == {"answer": "Fine, asker@localhost"}
    assert answer["recipients"] == ["asker@localhost"]


async def test_a_program_that_stopped_finds_its_mail_when_it_starts_again(
    gateway: Gateway, session: aiohttp.ClientSession
) -> None:
    asker, helper = Program(gateway.url, "asker", session), Program(gateway.url, "helper", session)
    await asker.start()
    await helper.start()
    await asker.send(helper.address, payload={"n": 1})
    await helper.stop()
    await asker.send(helper.address, payload={"n": 2})
    again = Program(gateway.url, "helper", session)
    await again.start()
    assert again.key != helper.key
    await again.poll(lambda _: None)
    assert [message["payload"] for message in again.seen] == [{"n": 1}, {"n": 2}]


async def test_an_empty_payload_is_left_out_and_its_message_arrives(
    gateway: Gateway, session: aiohttp.ClientSession
) -> None:
    program = Program(gateway.url, "alone", session, schemas=["agntcy:commerce.*"])
    await program.start()
    await program.send(program.address, payload={}, subject="", headers={})
    await program.poll(lambda _: None)
    (message,) = program.seen
    assert message.get("payload") is None
    assert message["recipients"] == [program.address]


async def test_a_message_that_no_handler_could_digest_comes_again(
    gateway: Gateway, session: aiohttp.ClientSession
) -> None:
    program = Program(gateway.url, "clumsy", session)
    await program.start()
    await program.send(program.address, payload={"n": 1})

    def stumble(_: dict[str, Any]) -> None:
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - our own
        await program.poll(stumble)
    await program.poll(lambda _: None)
    assert [message["payload"] for message in program.seen] == [{"n": 1}] * 2


async def test_what_a_program_may_do_without_a_key_ends_there(
    gateway: Gateway, session: aiohttp.ClientSession
) -> None:
    one, other = Program(gateway.url, "one", session), Program(gateway.url, "other", session)
    await one.start()
    await other.start()
    with pytest.raises(Failed, match="POLICY_DENIED"):  # somebody else's registration
        await one.ask("DELETE", "/v1/admin/agents/other")
    with pytest.raises(Failed, match="POLICY_DENIED"):  # and the mail of all times
        await one.ask("DELETE", "/v1/admin/agents/one?mail=drop")
    with pytest.raises(Failed, match="AUTHENTICATION_FAILED"):
        await Program(gateway.url, "third", session).ask("DELETE", "/v1/admin/agents/one")
    page = {"Origin": "https://evil.test"}
    body = json.dumps({"address": "evil", "delivery_mode": "pull"})
    headers = {**page, "Content-Type": "application/json"}
    async with session.post(f"{gateway.url}/v1/admin/agents", data=body, headers=headers) as answer:
        assert answer.status == 401


async def test_outside_of_development_mode_programs_neither_come_nor_go_by_themselves(
    world: World, session: aiohttp.ClientSession
) -> None:
    async with world.gateway() as strict:
        program = Program(strict.url, "program", session)
        with pytest.raises(Failed, match="AUTHENTICATION_FAILED"):
            await program.start()
        program.key, program.address = (await strict.register("program")).key, "program@acme.test"
        with pytest.raises(Failed, match="POLICY_DENIED"):
            await program.stop()
