"""What tests have in common: what they say to a gateway, what they wait for, and what they find."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from conformance.fake_peer import Exchange, FakePeer, accepts, answers
from gateway.protocol.timestamp import render_timestamp
from gateway.store.tallies import balance
from tests.federation import Federation
from tests.world import Agent, Gateway, Reply

PATIENCE_SECONDS = 15.0
LOOK_SECONDS = 0.02
LONG_SECONDS = 30  # a wait that only what it waits for ends within a test's patience
HOOK_HOST = "hooks.acme.test"
SMALL = b"a small file"


def in_an_hour(gateway: Gateway) -> str:
    return render_timestamp(gateway.app.clock.now() + timedelta(hours=1))


async def until(
    look: Callable[[], Awaitable[Any]],
    patience_seconds: float = PATIENCE_SECONDS,
    look_seconds: float = LOOK_SECONDS,
) -> Any:
    """What `look` finds, once it finds something."""
    async with asyncio.timeout(patience_seconds):
        while not (found := await look()):
            await asyncio.sleep(look_seconds)
    return found


async def sent(sender: Agent, *recipients: str, **members: Any) -> str:
    """The id of a message that was accepted."""
    reply = await sender.send(*recipients, **members)
    assert reply.status == 202, reply.text
    message_id: str = reply.json["message_id"]
    return message_id


async def stranger(gateway: Gateway, *to: str, size: int = 10, **more: Any) -> Reply:
    """What somebody is answered whom nothing proves."""
    message = {
        "version": "1.0",
        "sender": "eve@else.test",
        "recipients": list(to),
        "payload": "x" * size,
        **more,
    }
    return await gateway.call("POST", "/v1/messages", json=message)


async def upload(
    agent: Agent, content: Any = SMALL, filename: str = "offer.pdf", content_type: str = "application/pdf"
) -> Reply:
    return await agent.gateway.call(
        "POST",
        f"/v1/attachments?filename={filename}",
        key=agent.key,
        body=content,
        headers={"Content-Type": content_type},
    )


async def uploaded(agent: Agent, content: Any = SMALL, **about: str) -> dict[str, Any]:
    """What a message says of a file that the gateway took."""
    reply = await upload(agent, content, **about)
    assert reply.status == 201, reply.text
    attachment: dict[str, Any] = reply.json
    return attachment


def path_of(attachment: dict[str, Any]) -> str:
    """Where the file is at the gateway that has it, whatever its name in the world."""
    return "/" + str(attachment["url"]).split("/", 3)[3]


async def mail(agent: Agent, count: int = 1) -> list[dict[str, Any]]:
    """An inbox, once it holds so many."""

    async def look() -> list[dict[str, Any]]:
        found = await agent.inbox("?limit=1000")
        return found if len(found) >= count else []

    found: list[dict[str, Any]] = await until(look)
    return found


async def ended(sender: Agent, message_id: str, patience_seconds: float = PATIENCE_SECONDS) -> dict[str, Any]:
    """The status of a message, once it is final."""

    async def look() -> dict[str, Any] | None:
        status = await sender.status(message_id)
        return None if status["status"] == "queued" else status

    found: dict[str, Any] = await until(look, patience_seconds)
    return found


async def tried(sender: Agent, message_id: str, attempts: int = 1) -> dict[str, Any]:
    """The only recipient of a message, once it was tried so often and waits for the next time."""

    async def look() -> dict[str, Any] | None:
        (recipient,) = (await sender.status(message_id))["recipients"]
        return recipient if recipient["attempts"] >= attempts and recipient["last_error"] else None

    found: dict[str, Any] = await until(look)
    return found


async def ask(sender: Agent, *recipients: str, seconds: int = LONG_SECONDS, **members: Any) -> Reply:
    """What the request that asks is answered with."""
    message = {"sender": sender.address, "recipients": list(recipients), "payload": "ping", **members}
    async with asyncio.timeout(20):
        return await sender.gateway.call(
            "POST", "/v1/messages", key=sender.key, json=message, headers={"Prefer": f"wait={seconds}"}
        )


async def waiting(gateway: Gateway, count: int = 1) -> None:
    """Returns when so many wait in that process for a reply."""

    async def look() -> bool:
        return gateway.app.replies.waiting == count

    await until(look, 20)


async def count(gateway: Gateway, table: str) -> int:
    found: int = await gateway.app.database.fetchval(f"select count(*) from {table}")
    return found


async def settled_books(gateway: Gateway) -> None:
    """Nothing lives, and nothing is unaccounted for."""
    counted = await balance(gateway.app.database)
    assert (counted.queued, counted.held, counted.unaccounted) == (0, 0, 0)


def gate(then: Callable[[Exchange], Awaitable[None]] = accepts) -> tuple[asyncio.Event, Any]:
    """A behaviour that waits for the event."""
    opened = asyncio.Event()

    async def behave(exchange: Exchange) -> None:
        await opened.wait()
        await then(exchange)

    return opened, behave


@asynccontextmanager
async def receiver(net: Federation, host: str = HOOK_HOST) -> AsyncIterator[FakePeer]:
    """An agent's own HTTPS server, found by its name."""
    hook = net.fake(domain=host, host=host, path="/in?token=secret-in-url")
    net.dns.add(host, "A", hook.address)
    hook.will(answers(200))
    async with hook.listening():
        yield hook


async def pushed(gateway: Gateway, hook: FakePeer, local: str = "bob", **profile: Any) -> tuple[Agent, str]:
    """An agent behind that receiver, and the secret its requests are signed with."""
    reply = await gateway.call(
        "POST",
        "/v1/admin/agents",
        key=gateway.admin_key,
        json={
            "address": f"{local}@{gateway.domain}",
            "delivery_mode": "push",
            "push_target": hook.url,
            **profile,
        },
    )
    assert reply.status == 201, reply.text
    agent = reply.json["agent"]
    return Agent(agent["address"], agent["api_key"], gateway), agent.get("push_secret", "")
