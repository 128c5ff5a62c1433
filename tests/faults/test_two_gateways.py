"""Two processes on one database: a key is used once, whoever hears it, and nobody hears of the other's trouble."""

import asyncio
from collections.abc import Sequence
from typing import Any

from tests.faults.drills import Site

REQUESTS = 100
ROUNDS = 20

Answer = tuple[int, dict[str, Any]]


async def post(site: Site, gateway: int, serial: int = 0, **members: Any) -> Answer:
    message = {
        "sender": site.sender.address,
        "recipients": [site.recipients[0].address],
        "payload": {"serial": serial},
        **members,
    }
    url = f"{site.gateways[gateway].url}/v1/messages"
    async with site.session.post(url, json=message, headers=site.sender.headers) as response:
        return response.status, await response.json()


async def inbox_of(site: Site, gateway: int) -> Sequence[dict[str, Any]]:
    reader = site.recipients[0]
    url = f"{site.gateways[gateway].url}/v1/inbox/{reader.address}?limit=1000"
    async with site.session.get(url, headers=reader.headers) as response:
        found: list[dict[str, Any]] = (await response.json())["messages"]
        return found


async def test_one_key_in_a_hundred_requests_at_two_processes_is_one_message(two_gateways: Site) -> None:
    answers = await asyncio.gather(
        *(post(two_gateways, n % 2, idempotency_key="once") for n in range(REQUESTS))
    )
    assert {status for status, _ in answers} == {202}
    (message_id,) = {answer["message_id"] for _, answer in answers}
    for gateway in (0, 1):
        assert [m["message_id"] for m in await inbox_of(two_gateways, gateway)] == [message_id]


async def test_crossed_keys_and_ids_at_two_processes_reach_no_caller_as_an_error(two_gateways: Site) -> None:
    for turn in range(ROUNDS):
        keys, ids = (f"k-{turn}", f"l-{turn}"), (f"i-{turn}", f"j-{turn}")
        crossed = [(keys[a], ids[b], gateway) for a in (0, 1) for b in (0, 1) for gateway in (0, 1)]
        answers = await asyncio.gather(
            *(
                post(two_gateways, gateway, turn, idempotency_key=key, message_id=message_id)
                for key, message_id, gateway in (*crossed, *reversed(crossed))
            )
        )
        assert {status for status, _ in answers} <= {202, 409}, answers
        accepted = {answer["message_id"] for status, answer in answers if status == 202}
        found = [m["message_id"] for m in await inbox_of(two_gateways, 0) if m["payload"]["serial"] == turn]
        assert sorted(found) == sorted(accepted)
