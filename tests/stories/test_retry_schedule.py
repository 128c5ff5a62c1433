"""A peer that refuses for hours and days: attempts keep their schedule, each message at a moment of its own, and end.

The clock is turned to what is due next, so a week passes while we watch.
"""

import asyncio
import itertools
from collections import Counter, defaultdict
from datetime import datetime, timedelta

import asyncpg
import pytest

from conformance.fake_peer import Behaviour, Exchange, answers, refuses
from gateway.config.sections import QueueSettings
from gateway.protocol.retry import CAP_SECONDS, SPREAD
from tests.federation import Federation
from tests.world import Agent, Gateway

MESSAGES = 200
FEW = 4  # do not open a breaker by being tried once
TOGETHER = 20  # become due at one turn of the clock
ATTEMPTS_MAX = 17  # the last five an hour apart
PATIENCE_SECONDS = 30.0
LOOK_SECONDS = 0.01
HOUR, DAY = 3600, 86_400
ROOM = refuses(503, "TEMPORARY_FAILURE", "Not today.")

NOTHING_DUE = "select not exists (select from deliveries where token is not null or due <= amtp_now())"
NOTHING_LEASED = "select not exists (select from deliveries where token is not null)"
EVERY_ONE_TRIED = "select not exists (select from deliveries where attempts = 0)"
WHEN_DUE = "select max(due) from (select due from deliveries order by due limit $1) d"
# The next attempt is decided when one ended: after it was begun, and before that is written down.
DECIDED = (
    "select d.message, d.attempts, d.last_attempt as begun, a.at as written, d.due from deliveries d"
    " join attempts a on a.message = d.message and a.recipient = d.recipient and a.attempt = d.attempts"
    " where d.token is null"
)


@pytest.fixture
def poll_seconds() -> float:
    return 0.01  # the clock is turned hundreds of times here


Tried = dict[str, list[datetime]]


def watched(net: Federation, then: Behaviour) -> tuple[Tried, Behaviour]:
    """A behaviour that notes when, on the turned clock, it was asked about which message."""
    tried: Tried = defaultdict(list)

    async def behave(exchange: Exchange) -> None:
        now = net.clock.now()
        await then(exchange)
        for message in exchange.request.messages if exchange.request.method == "POST" else ():
            tried[message["message_id"]].append(now)

    return tried, behave


async def until(gateway: Gateway, question: str) -> None:
    """Until the database of this gateway answers with yes."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await gateway.app.database.fetchval(question):
            await asyncio.sleep(LOOK_SECONDS)


async def turn_to_next(net: Federation, gateway: Gateway) -> bool:
    """Turns the clock until some more are due, and waits until they were tried; False where nothing waits any more."""
    due = await gateway.app.database.fetchval(WHEN_DUE, TOGETHER)
    if due is None:
        return False
    net.turn(max((due - net.clock.now()).total_seconds(), 0))
    await until(gateway, NOTHING_DUE)
    return True


def middle(attempts: int) -> float:
    """Seconds after that many attempts, before they are spread."""
    return min(2.0 ** (attempts - 1), CAP_SECONDS)


def on_schedule(row: asyncpg.Record) -> bool:
    wait = middle(row["attempts"])
    early, late = timedelta(seconds=wait * (1 - SPREAD)), timedelta(seconds=wait * (1 + SPREAD))
    return bool(row["begun"] + early <= row["due"] <= row["written"] + late)


async def send_all(sender: Agent, count: int = MESSAGES) -> list[str]:
    replies = await asyncio.gather(*(sender.send("bob@peer.test", payload=n) for n in range(count)))
    assert {reply.status for reply in replies} == {202}
    return [reply.json["message_id"] for reply in replies]


async def told(sender: Agent) -> dict[str, list[str]]:
    """What the sender was told of each message, in this order."""
    heard: dict[str, list[str]] = defaultdict(list)
    cursor = ""
    while True:
        path = f"/v1/inbox/{sender.address}?limit=1000{cursor}"
        page = (await sender.gateway.call("GET", path, key=sender.key)).json
        for item in page["messages"]:
            heard[item["in_reply_to"]].append(item["message_type"])
        if not page["has_more"]:
            return dict(heard)
        cursor = f"&cursor={page['cursor']}"


async def statuses(sender: Agent, ids: list[str]) -> Counter[str]:
    return Counter([(await sender.status(id_))["status"] for id_ in ids])


async def test_two_hundred_messages_keep_the_schedule_each_at_its_own_moments_until_attempts_are_used_up(
    net: Federation,
) -> None:
    few = QueueSettings(attempts_max=ATTEMPTS_MAX)
    async with (
        net.gateway("acme.test", queue=few) as acme,
        net.peer(features=frozenset({"batch"})) as peer,
    ):
        tried, behave = watched(net, ROOM)
        peer.will(behave)
        alice = await acme.register("alice")
        begin = net.clock.now()
        ids = await send_all(alice)
        await until(acme, NOTHING_LEASED)
        decided: dict[int, dict[str, float]] = defaultdict(dict)
        late = False
        while await turn_to_next(net, acme):
            for row in await acme.app.database.fetch(DECIDED):
                assert on_schedule(row), row
                wait = (row["due"] - row["begun"]).total_seconds()
                decided[row["attempts"]][str(row["message"])] = wait / middle(row["attempts"])
            if not late and net.clock.now() - begin > timedelta(hours=4, minutes=5):
                late = True
                await acme.app.housekeeping.once()
        lost_max = (
            0 if net.ground.network.startswith("127.") else 2
        )  # an attempt that a wire loses counts too
        assert ATTEMPTS_MAX - lost_max <= min(len(moments) for moments in tried.values())
        assert max(len(moments) for moments in tried.values()) == ATTEMPTS_MAX
        for moments in tried.values():
            for attempts, (one, next_one) in enumerate(itertools.pairwise(moments), start=1):
                assert (next_one - one).total_seconds() >= middle(attempts) * (1 - SPREAD)
        for attempts in range(8, ATTEMPTS_MAX):  # before, the clock on the wall has a say too
            draws = sorted(decided[attempts].values())
            assert len(draws) == MESSAGES
            quarters = Counter(int((draw - 1 + SPREAD) / SPREAD * 2) for draw in draws)
            assert all(quarters[quarter] >= MESSAGES / 20 for quarter in range(4)), (attempts, quarters)
        assert await statuses(alice, ids) == {"failed": MESSAGES}
        assert await told(alice) == {id_: ["delivery_delayed", "delivery_failure"] for id_ in ids}
        assert await acme.app.database.fetchval("select count(*) from dead_letters") == MESSAGES


@pytest.mark.parametrize(("status", "count"), [(401, FEW), (404, FEW), (503, MESSAGES)])
async def test_seven_days_end_it_however_the_peer_refuses(net: Federation, status: int, count: int) -> None:
    async with net.gateway("acme.test") as acme, net.peer(features=frozenset({"batch"})) as peer:
        peer.will(ROOM if status == 503 else answers(status))
        alice = await acme.register("alice")
        ids = await send_all(alice, count)
        await until(acme, EVERY_ONE_TRIED)
        for seconds in (5 * HOUR, 7 * DAY - 6 * HOUR, 2 * HOUR):
            assert await statuses(alice, ids) == {"queued": count}
            net.turn(seconds)
            await acme.app.housekeeping.once()
        await until(acme, "select not exists (select from deliveries)")
        assert await statuses(alice, ids) == {"failed": count}
        assert await told(alice) == {id_: ["delivery_delayed", "delivery_failure"] for id_ in ids}


@pytest.mark.parametrize("status", [401, 404])
async def test_a_peer_that_refuses_us_as_a_whole_is_tried_on_the_same_schedule(
    net: Federation, status: int
) -> None:
    """Its breaker opens for a minute at most: a message that is due less often does not feel it."""
    async with net.gateway("acme.test") as acme, net.peer() as peer:
        tried, behave = watched(net, answers(status))
        peer.will(behave)
        alice = await acme.register("alice")
        reply = await alice.send("bob@peer.test")
        await until(acme, NOTHING_LEASED)
        for attempts in range(1, ATTEMPTS_MAX):
            (row,) = await acme.app.database.fetch(DECIDED)
            assert row["attempts"] == attempts
            assert on_schedule(row), row
            breaker = await acme.app.database.fetchval("select max(open_until) from destinations")
            net.turn(max(((max(row["due"], breaker or row["due"])) - net.clock.now()).total_seconds(), 0))
            await until(acme, f"select attempts > {attempts} and token is null from deliveries")
        assert len(tried[reply.json["message_id"]]) == ATTEMPTS_MAX
