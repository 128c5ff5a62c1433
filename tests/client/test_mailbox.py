"""What is taken is held, and let go of in good order, whatever the gateway does meanwhile."""

import asyncio
import json

import pytest

from gateway.client import mailbox
from gateway.client.mailbox import TOGETHER_BYTES_MAX, Mailbox
from gateway.client.wire import Wire
from tests.client.moody import Moody, moody, page, reply

PATIENCE_SECONDS = 20.0


def leased(number: int, token: str = "t-1") -> dict[str, object]:
    return reply("m-1", f"r-{number}", gateway={"entry": f"e-{number}", "lease": {"token": token}})


def bodies(gateway: Moody, end: str) -> list[dict[str, object]]:
    return [json.loads(each.body) for each in gateway.requests if each.line.split()[1].endswith(end)]


def opened(gateway: Moody) -> Mailbox:
    return Mailbox(Wire(gateway.url, "k", PATIENCE_SECONDS), "bob@acme.test")


async def test_acknowledgements_under_one_lease_travel_together() -> None:
    messages = [leased(n, "t-1" if n % 2 else "t-2") for n in range(100)]
    async with moody(looks=[page(*messages)]) as gateway:
        box = opened(gateway)
        taken = await box.take(100)
        assert await asyncio.gather(*(box.acknowledge(message) for message in taken)) == [None] * 100
        sent = bodies(gateway, "/ack")
        assert sorted(gateway.acknowledged) == sorted(message.id for message in taken)
        assert len(sent) < 20
        assert {body["lease"] for body in sent} == {"t-1", "t-2"}
        assert not any(map(box.holds, taken))
        await box._wire.close()


async def test_large_answers_travel_apart() -> None:
    async with moody(looks=[page(leased(1), leased(2))]) as gateway:
        box = opened(gateway)
        large = {"reply": {"payload": "x" * TOGETHER_BYTES_MAX}}
        await asyncio.gather(*(box.acknowledge(message, large) for message in await box.take(2)))
        assert len(bodies(gateway, "/ack")) == 2
        await box._wire.close()


async def test_what_is_still_held_at_the_end_is_given_back() -> None:
    async with moody(looks=[page(leased(1), leased(2, "t-2"))]) as gateway:
        box = opened(gateway)
        first, _ = await box.take(2)
        await box.acknowledge(first)
        await box.close()
        assert bodies(gateway, "/lease") == [{"lease": "t-2", "seconds": 0}]
        await box._wire.close()


async def test_closing_waits_for_no_gateway_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox, "CLOSE_SECONDS", 0.2)
    async with moody(looks=[page(leased(1))]) as gateway:
        box = opened(gateway)
        (message,) = await box.take(1)
        gateway.acknowledges = False
        telling = asyncio.create_task(box.acknowledge(message))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not gateway.acknowledged:
                await asyncio.sleep(0.01)
            await box.close()
            await asyncio.wait({telling})
        assert telling.cancelled()
        await box._wire.close()
