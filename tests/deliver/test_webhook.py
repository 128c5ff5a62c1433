"""The courier to agents that are pushed to, against a receiver on real TLS that behaves as badly as it is told."""

import asyncio
import io
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any
from uuid import UUID

import pytest
from cryptography.fernet import Fernet

from conformance.fake_peer import (
    Authority,
    Behaviour,
    FakePeer,
    answers,
    answers_endlessly,
    hangs,
    resets_after_body,
    resets_before_body,
    writes,
)
from gateway.config.sections import OutboundSettings as Limits
from gateway.deliver.courier import Consignment, Parcel
from gateway.deliver.outcome import Deferred, Delivered, Outcome, Withdrawn
from gateway.deliver.webhook import TROUBLE, WebhookCourier
from gateway.journal.journal import Journal
from gateway.net.dns_answer import Absent, DnsAnswer, Records
from gateway.net.outbound import Kind, Outbound
from gateway.protocol.errors import Code
from gateway.protocol.webhook_signature import render_secret, verify
from gateway.route.ways import Pushed
from gateway.store.agents.agents import Resident
from gateway.store.agents.push_secrets import replace_secret
from gateway.store.clock import Clock
from gateway.store.queue.deliveries import Delivery, Letter
from gateway.store.sealed import Sealer
from tests.raw_server import RawServer
from tests.raw_server import answer as raw_answer

NOW = datetime(2026, 11, 21, tzinfo=UTC)
ROW = UUID("019cada0-0000-7000-8000-000000000001")
NAME = "bob@acme.test"
HOST = "hooks.acme.test"
SECRET, NEXT_SECRET = render_secret(b"first" * 6), render_secret(b"second" * 5)
LOOPBACK = ip_network("127.0.0.0/8")


async def resolve(host: str) -> DnsAnswer:
    match host:
        case "inside.test":
            return Records(("10.0.0.1",), 60)
        case "nowhere.test":
            return Absent(60)
        case _:
            return Records(("127.0.0.1",), 60)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def outbound(authority: Authority) -> AsyncIterator[Outbound]:
    client = Outbound(resolve, authority.trusting_context(), agent="AMTP/1.0 (tests)", allow=[LOOPBACK])
    yield client
    await client.close()


@pytest.fixture
async def hook(authority: Authority) -> AsyncIterator[FakePeer]:
    receiver = FakePeer(authority, host=HOST, path="/in")
    receiver.will(answers(200))
    async with receiver.listening():
        yield receiver


@pytest.fixture
def sealer() -> Sealer:
    return Sealer([Fernet.generate_key().decode()])


class Post:
    """A courier, and what it wrote into the log."""

    def __init__(self, outbound: Outbound, sealer: Sealer, **limits: Any) -> None:
        self.log = io.StringIO()
        self.journal = Journal(self.log, form="text")
        self.clock, self._sealer = Clock(), sealer
        self.courier = WebhookCourier(
            outbound, sealer, self.clock, self.journal, replace(Limits(), **limits), seconds=2
        )

    def resident(self, url: str, secrets: str = SECRET) -> Resident:
        return Resident(7, NAME, "push", "active", url, self._sealer.seal(secrets))

    async def push(self, resident: Resident, *, address: str = NAME, attempts: int = 1) -> Outcome:
        body = b'{"message_id":"m-1","sender":"alice@acme.test","recipients":["bob@acme.test"],"payload":1}'
        letter = Letter(ROW, "m-1", "alice@acme.test", proven=True, automatic=False, hops=(), body=body)
        delivery = Delivery(
            ROW, NAME, address, NAME, 1, attempts, NOW, NOW + timedelta(days=7), "horizon", NOW
        )
        (outcome,) = await self.courier.deliver(
            Parcel(NAME, (Consignment(letter, (delivery,)),)), Pushed(resident)
        )
        return outcome


@pytest.fixture
def post(outbound: Outbound, sealer: Sealer) -> Post:
    return Post(outbound, sealer)


async def test_a_push_is_one_signed_post(post: Post, hook: FakePeer) -> None:
    assert await post.push(post.resident(hook.url)) == Delivered("webhook")
    (request,) = hook.requests
    assert (request.method, request.path) == ("POST", "/in")
    assert request.headers["user-agent"] == "AMTP/1.0 (tests)"
    assert request.headers["content-type"] == "application/json"
    assert verify(request.headers, request.body, [SECRET], post.clock.now()).id.startswith("msg_")


async def test_every_attempt_has_the_same_id_and_body_and_a_time_of_its_own(
    post: Post, hook: FakePeer
) -> None:
    resident = post.resident(hook.url)
    hook.will(answers(500), answers(200))
    await post.push(resident)
    post.clock.offset += timedelta(seconds=60)
    await post.push(resident, attempts=2)
    first, second = hook.posts
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    waited = int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"])
    assert 60 <= waited <= 62


async def test_while_two_secrets_live_both_sign(post: Post, hook: FakePeer) -> None:
    now = post.clock.now()
    resident = post.resident(hook.url, replace_secret(SECRET, NEXT_SECRET, now + timedelta(hours=1), now))
    await post.push(resident)
    post.clock.offset += timedelta(hours=2)
    await post.push(resident)
    during, after = hook.posts
    assert len(during.headers["webhook-signature"].split()) == 2
    for secret in (SECRET, NEXT_SECRET):
        verify(during.headers, during.body, [secret], now)
    verify(after.headers, after.body, [NEXT_SECRET], post.clock.now())
    assert len(after.headers["webhook-signature"].split()) == 1


async def test_410_withdraws_the_agent_from_exactly_that_url(post: Post, hook: FakePeer) -> None:
    hook.will(answers(410))
    outcome = await post.push(post.resident(hook.url), address="bob+desk@acme.test")
    assert outcome == Withdrawn(7, "bob+desk@acme.test", hook.url)
    assert await post.push(post.resident(hook.url)) == Withdrawn(7, None, hook.url)


BAD: dict[str, tuple[Behaviour, Kind, bool]] = {
    "hangs": (hangs, Kind.TIMEOUT, False),
    "resets before the body": (resets_before_body, Kind.LOST, False),
    "resets after the body": (resets_after_body, Kind.LOST, False),
    "speaks no HTTP": (writes(b"220 hooks.acme.test ESMTP\r\n\r\n"), Kind.PROTOCOL, False),
    "answers for ever": (answers_endlessly(), Kind.TOO_LARGE, False),
}


@pytest.mark.parametrize("case", BAD)
async def test_a_webhook_in_trouble_gets_the_message_again_later(
    outbound: Outbound, sealer: Sealer, hook: FakePeer, case: str
) -> None:
    behave, kind, unreachable = BAD[case]
    hook.will(behave)
    post = Post(outbound, sealer, answer_bytes=1024)
    outcome = await post.push(post.resident(hook.url))
    expected = f"The agent's webhook {TROUBLE[kind]}."
    assert outcome == Deferred(Code.RECIPIENT_UNAVAILABLE, expected, blames=True, unreachable=unreachable)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("https://inside.test/in", Kind.REFUSED_ADDRESS),
        ("https://10.0.0.1/in", Kind.REFUSED_ADDRESS),
        ("https://nowhere.test/in", Kind.RESOLVE),
        ("https://hooks.acme.test:1025/in", Kind.CONNECT),
        ("http://hooks.acme.test:1025/in", Kind.REFUSED_ADDRESS),
    ],
)
async def test_where_nothing_can_be_sent_the_reason_does_not_tell_where(
    post: Post, url: str, kind: Kind
) -> None:
    outcome = await post.push(post.resident(url))
    expected = f"The agent's webhook {TROUBLE[kind]}."
    assert outcome == Deferred(Code.RECIPIENT_UNAVAILABLE, expected, blames=True, unreachable=True)
    post.journal.flush()
    assert post.log.getvalue() == ""


@pytest.mark.parametrize(
    "how",
    [{"expired": True}, {"certificate_host": "else.test"}, {"tls_version_max": ssl.TLSVersion.TLSv1_2}],
    ids=["expired", "for another name", "TLS 1.2"],
)
async def test_nothing_is_sent_where_the_certificate_is_bad(
    post: Post, authority: Authority, how: dict[str, Any]
) -> None:
    async with FakePeer(authority, host=HOST, **how).listening() as hook:
        outcome = await post.push(post.resident(hook.url))
        assert outcome == Deferred(
            Code.RECIPIENT_UNAVAILABLE,
            f"The agent's webhook {TROUBLE[Kind.TLS]}.",
            blames=True,
            unreachable=True,
        )
        assert hook.requests == []
        assert HOST not in str(await post.courier.probe(Pushed(post.resident(hook.url))))


def test_every_way_to_get_no_answer_has_its_words() -> None:
    assert set(TROUBLE) == set(Kind)


async def test_http_is_spoken_where_configuration_allows_it(outbound: Outbound, sealer: Sealer) -> None:
    async with RawServer(raw_answer(200, b"ok")) as hook:
        allowing = Post(outbound, sealer, plain_webhooks=True)
        resident = allowing.resident(f"http://127.0.0.1:{hook.port}/in")
        assert await allowing.push(resident) == Delivered("webhook")
        assert await allowing.courier.probe(Pushed(resident)) is None


async def test_a_secret_that_does_not_open_waits_for_the_operator(
    post: Post, hook: FakePeer, sealer: Sealer
) -> None:
    strange = replace(post.resident(hook.url), push_secrets=b"sealed by another key")
    outcome = await post.push(strange)
    assert isinstance(outcome, Deferred)
    assert (outcome.code, outcome.blames) == (Code.TEMPORARY_FAILURE, False)
    assert hook.requests == []
    post.journal.flush()
    assert "secrets.key" in post.log.getvalue()


async def test_several_deliveries_go_side_by_side_each_with_its_outcome(post: Post, hook: FakePeer) -> None:
    waiting = asyncio.Barrier(2)

    async def together(exchange: Any) -> None:
        await waiting.wait()
        status = 200 if b'"m-1"' in (await exchange.read_body()).body else 410
        await exchange.answer(status)

    hook.will(together)
    consignments = []
    for number in (1, 2):
        row = UUID(int=ROW.int + number)
        body = b'{"message_id":"m-%d","sender":"a@acme.test","payload":1}' % number
        letter = Letter(row, f"m-{number}", "a@acme.test", proven=True, automatic=False, hops=(), body=body)
        delivery = Delivery(row, NAME, NAME, NAME, 1, 1, NOW, NOW + timedelta(days=7), "horizon", NOW)
        consignments.append(Consignment(letter, (delivery,)))
    outcomes = await post.courier.deliver(Parcel(NAME, tuple(consignments)), Pushed(post.resident(hook.url)))
    assert outcomes == [Delivered("webhook"), Withdrawn(7, None, hook.url)]


async def test_a_probe_tells_whether_the_webhook_is_back(post: Post, hook: FakePeer) -> None:
    assert await post.courier.probe(Pushed(post.resident(hook.url))) is None
    assert await post.courier.probe(Pushed(post.resident("https://hooks.acme.test:1025/"))) is not None
    assert hook.requests == []
