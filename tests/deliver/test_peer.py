"""The courier to other gateways, against a peer on real TLS that behaves as badly as it is told."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from conformance.fake_peer import (
    Authority,
    Behaviour,
    Exchange,
    FakePeer,
    accepts,
    answers,
    answers_endlessly,
    hangs,
    receipt,
    redirects,
    refuses,
    resets_after_body,
    resets_before_body,
    writes,
)
from gateway import __version__
from gateway.config.sections import PeerSettings
from gateway.config.settings import Config, complete
from gateway.config.values import Secret
from gateway.deliver.courier import Consignment, Parcel
from gateway.deliver.outcome import Deferred, Delivered, Outcome, Refused
from gateway.deliver.peer import BATCH_LINES_MAX, PeerCourier
from gateway.net.dns_answer import DnsAnswer, Records
from gateway.net.outbound import Outbound
from gateway.protocol.errors import Code
from gateway.route.destination import Destination
from gateway.store.clock import Clock
from gateway.store.queue.deliveries import Delivery, Letter
from gateway.store.row_ids import Mint

LOOPBACK = ip_network("127.0.0.0/8")
TAKEN = Delivered("amtp:amtp.peer.test")
NOW = datetime(2026, 11, 21, tzinfo=UTC)


async def resolve(host: str) -> DnsAnswer:
    return Records(("127.0.0.1",), 60)


async def nothing_answered(domain: str, message_ids: Collection[str]) -> dict[str, str]:
    return {}


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def outbound(authority: Authority) -> AsyncIterator[Outbound]:
    client = Outbound(resolve, authority.trusting_context(), agent="tests", allow=[LOOPBACK])
    yield client
    await client.close()


@pytest.fixture
async def peer(authority: Authority) -> AsyncIterator[FakePeer]:
    async with FakePeer(authority).listening() as listening:
        yield listening


@pytest.fixture
async def batching(authority: Authority) -> AsyncIterator[FakePeer]:
    async with FakePeer(authority, features=frozenset({"batch"})).listening() as listening:
        yield listening


def destination_of(peer: FakePeer) -> Destination:
    return Destination(
        peer.domain, peer.url, peer.host, peer.port, "", max_size=peer.max_size, features=peer.features
    )


def configured(**peers: PeerSettings) -> Config:
    return complete(replace(Config(), domains=("acme.test",), hostname="amtp.acme.test", peers=peers))


@pytest.fixture
def courier(outbound: Outbound) -> PeerCourier:
    return PeerCourier(outbound, configured(), nothing_answered, Clock())


class Post:
    """Makes parcels of messages."""

    def __init__(self, mint: Mint) -> None:
        self._mint = mint

    def message(
        self,
        *recipients: str,
        attempts: int = 1,
        hops: tuple[str, ...] = (),
        indent: int | None = None,
        everybody: tuple[str, ...] = (),
        **members: Any,
    ) -> Consignment:
        """A message for `everybody` (by default the same), with its deliveries to `recipients`."""
        row = self._mint()
        body = {
            "message_id": str(row),
            "sender": "a@acme.test",
            "recipients": everybody or recipients,
            "payload": None,
        }
        letter = Letter(
            row=row,
            message_id=str(row),
            sender="a@acme.test",
            proven=True,
            automatic=False,
            hops=hops,
            body=json.dumps({**body, **members}, indent=indent).encode(),
        )
        return Consignment(letter, tuple(delivery(row, each, attempts) for each in recipients))


def delivery(row: UUID, address: str, attempts: int) -> Delivery:
    return Delivery(
        message=row,
        recipient=address.lower(),
        address=address,
        destination="peer.test",
        token=1,
        attempts=attempts,
        accepted_at=NOW,
        expires_at=NOW + timedelta(days=7),
        expiry="horizon",
        first_attempt=NOW,
    )


@pytest.fixture
def post(mint: Mint) -> Post:
    return Post(mint)


def parcel(*consignments: Consignment) -> Parcel:
    return Parcel("peer.test", consignments)


async def outcome_of(courier: PeerCourier, peer: FakePeer, consignment: Consignment) -> Outcome:
    """Of a message with one recipient."""
    [outcome] = await courier.deliver(parcel(consignment), destination_of(peer))
    return outcome


async def test_one_post_carries_a_message_to_all_its_recipients_there(
    courier: PeerCourier, peer: FakePeer, post: Post
) -> None:
    sent = post.message(
        "Bob+x@peer.test", "carol@peer.test", everybody=("Bob+x@peer.test", "d@other.test", "carol@peer.test")
    )
    assert await courier.deliver(parcel(sent), destination_of(peer)) == [TAKEN, TAKEN]
    [request] = peer.requests
    assert (request.method, request.path) == ("POST", "/v1/messages")
    assert request.messages[0]["recipients"] == ["Bob+x@peer.test", "carol@peer.test"]
    assert request.messages[0]["message_id"] == sent.letter.message_id
    assert request.headers["content-type"] == "application/json"
    assert request.headers["x-amtp-version"] == "1.0"
    assert request.headers["user-agent"] == f"AMTP/1.0 (amtp-gateway/{__version__})"
    assert request.headers["host"] == f"{peer.host}:{peer.port}"
    assert "authorization" not in request.headers


@pytest.mark.parametrize(("can", "key"), [({"ids"}, "k-1"), (set(), str(UUID(int=1, version=4)))])
async def test_a_message_that_needs_no_change_travels_byte_for_byte(
    courier: PeerCourier, peer: FakePeer, post: Post, can: set[str], key: str
) -> None:
    peer.features = frozenset(can)
    sent = post.message("bob@peer.test", idempotency_key=key, indent=3, payload={"n": 1.50})
    await courier.deliver(parcel(sent), destination_of(peer))
    assert peer.requests[0].body == sent.letter.body


async def test_every_attempt_carries_the_same_ids_and_a_key_of_its_own_where_the_sender_gave_none(
    courier: PeerCourier, peer: FakePeer, post: Post
) -> None:
    first, other = post.message("bob@peer.test"), post.message("bob@peer.test")
    for sent in (first, first, other):
        await courier.deliver(parcel(sent), destination_of(peer))
    one, again, another = [request.messages[0] for request in peer.requests]
    assert one == again
    assert one["idempotency_key"]
    assert one["idempotency_key"] != another["idempotency_key"]


async def test_the_path_behind_a_message_and_our_own_name_stand_in_via(
    courier: PeerCourier, peer: FakePeer, post: Post
) -> None:
    await courier.deliver(parcel(post.message("bob@peer.test")), destination_of(peer))
    sent = post.message("bob@peer.test", hops=("first.test", "second.test"))
    await courier.deliver(parcel(sent), destination_of(peer))
    assert [request.headers["via"] for request in peer.requests] == [
        "1.1 amtp.acme.test",
        "1.1 first.test, 1.1 second.test, 1.1 amtp.acme.test",
    ]


async def test_a_refused_recipient_does_not_hold_up_the_others(
    courier: PeerCourier, peer: FakePeer, post: Post
) -> None:
    sent = post.message("bob@peer.test", "carol@peer.test")
    document = receipt(
        {"message_id": "m", "recipients": ["bob@peer.test", "carol@peer.test"]}, carol="AGENT_UNKNOWN"
    )
    peer.will(answers(202, document))
    bob, carol = await courier.deliver(parcel(sent), destination_of(peer))
    assert bob == TAKEN
    assert isinstance(carol, Refused)
    assert carol.code is Code.AGENT_UNKNOWN


async def test_a_message_larger_than_the_peer_takes_is_not_sent(
    courier: PeerCourier, peer: FakePeer, post: Post
) -> None:
    peer.max_size = 1000
    outcomes = await courier.deliver(
        parcel(post.message("bob@peer.test", "carol@peer.test", payload="x" * 1000)), destination_of(peer)
    )
    assert [isinstance(each, Refused) and each.code for each in outcomes] == [Code.MESSAGE_TOO_LARGE] * 2
    assert peer.requests == []


FAULTS: list[tuple[Behaviour, str, bool]] = [
    (resets_before_body, "the connection ended before the answer", True),
    (resets_after_body, "the connection ended before the answer", True),
    (answers(200, b"<html>Welcome to nginx</html>"), "with a body that is not JSON", True),
    (writes(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "not valid HTTP", True),
    (writes(b"HTTP/1.1 202 Accepted\r\nContent-Length: 100\r\n\r\n{"), "", True),
    (writes(b""), "the connection ended before the answer", True),
    (redirects("https://amtp.elsewhere.test/v1/messages"), "a redirect", True),
    (answers_endlessly(), "larger than", True),
    (answers(200, b"", content_encoding="gzip"), "encoded", True),
    (answers(404, b"no"), "404 without an AMTP error", True),
    (refuses(503, "QUEUE_FULL"), "QUEUE_FULL", False),
    (refuses(401, "AUTHENTICATION_FAILED"), "AUTHENTICATION_FAILED", True),
]


@pytest.mark.parametrize(("behaviour", "reason", "blames"), FAULTS, ids=[row[1] or "cut" for row in FAULTS])
async def test_a_peer_in_trouble_gets_the_message_again_later(
    courier: PeerCourier, peer: FakePeer, post: Post, behaviour: Behaviour, reason: str, blames: bool
) -> None:
    sent = post.message("bob@peer.test")
    peer.will(behaviour)
    outcome = await outcome_of(courier, peer, sent)
    assert isinstance(outcome, Deferred)
    assert reason in outcome.reason
    assert outcome.blames == blames
    peer.will(accepts)
    assert await outcome_of(courier, peer, sent) == TAKEN


async def test_the_time_a_peer_asks_for_is_handed_on(
    courier: PeerCourier, peer: FakePeer, post: Post
) -> None:
    peer.will(refuses(429, "RATE_LIMIT_EXCEEDED", retry_after="77"))
    outcome = await outcome_of(courier, peer, post.message("bob@peer.test"))
    assert isinstance(outcome, Deferred)
    assert (outcome.code, outcome.retry_after_seconds) == (Code.RATE_LIMIT_EXCEEDED, 77)


async def test_a_peer_that_does_not_answer_is_given_up_in_time(
    outbound: Outbound, peer: FakePeer, post: Post
) -> None:
    peer.will(hangs)
    courier = PeerCourier(outbound, configured(), nothing_answered, Clock(), seconds=0.3)
    outcome = await outcome_of(courier, peer, post.message("bob@peer.test"))
    assert isinstance(outcome, Deferred)
    assert "no answer within" in outcome.reason


async def test_a_conflict_about_a_repeat_is_told_from_one_about_a_first_attempt(
    courier: PeerCourier, peer: FakePeer, post: Post
) -> None:
    peer.will(refuses(409, "IDEMPOTENCY_CONFLICT"))
    first = await outcome_of(courier, peer, post.message("bob@peer.test", attempts=1))
    repeat = await outcome_of(courier, peer, post.message("bob@peer.test", attempts=2))
    assert [isinstance(each, Refused) and each.unknown for each in (first, repeat)] == [False, True]


BAD_TLS: list[tuple[dict[str, Any], str]] = [
    ({"expired": True}, "expired"),
    ({"certificate_host": "amtp.other.test"}, "not valid for"),
    ({"authority": Authority()}, "certificate"),
    ({"tls_version_max": ssl.TLSVersion.TLSv1_2}, "TLS"),
]


@pytest.mark.parametrize(
    ("spoiled", "reason"), BAD_TLS, ids=["expired", "wrong host", "unknown issuer", "TLS 1.2"]
)
async def test_nothing_of_a_message_is_sent_to_a_peer_that_cannot_prove_its_name(
    courier: PeerCourier, authority: Authority, post: Post, spoiled: dict[str, Any], reason: str
) -> None:
    async with FakePeer(**{"authority": authority, **spoiled}).listening() as peer:
        outcome = await outcome_of(courier, peer, post.message("bob@peer.test"))
        assert isinstance(outcome, Deferred)
        assert outcome.blames
        assert reason in outcome.reason
        assert peer.requests == []


async def test_a_peer_that_is_down_is_to_blame(
    courier: PeerCourier, authority: Authority, post: Post
) -> None:
    async with FakePeer(authority).listening() as peer:
        pass
    outcome = await outcome_of(courier, peer, post.message("bob@peer.test"))
    assert isinstance(outcome, Deferred)
    assert outcome.blames
    assert "does not take connections" in outcome.reason


async def test_a_peer_at_a_private_address_is_not_contacted_and_the_reason_names_the_rule(
    authority: Authority, peer: FakePeer, post: Post
) -> None:
    outbound = Outbound(resolve, authority.trusting_context(), agent="tests")
    outcome = await outcome_of(
        PeerCourier(outbound, configured(), nothing_answered, Clock()), peer, post.message("bob@peer.test")
    )
    await outbound.close()
    assert isinstance(outcome, Deferred)
    assert outcome.reason == "amtp.peer.test is not at a public address, nor in outbound.allow_networks."
    assert "127.0.0.1 (loopback)" in (outcome.inside or "")
    assert "outbound.allow_networks" in (outcome.inside or "")
    assert peer.connections == 0


async def test_a_configured_peer_sees_our_key_and_our_certificate(
    outbound: Outbound, authority: Authority, tmp_path: Path, post: Post
) -> None:
    certificate, key = authority.write_pair(tmp_path, "amtp.acme.test")
    access = PeerSettings(
        gateway="https://unused.test",
        bearer=Secret("a key for the peer"),
        certificate_file=certificate,
        key_file=key,
        ca_file=authority.write_ca(tmp_path),
    )
    courier = PeerCourier(outbound, configured(**{"peer.test": access}), nothing_answered, Clock())
    async with FakePeer(authority, wants_certificate=True).listening() as peer:
        assert await outcome_of(courier, peer, post.message("bob@peer.test")) == TAKEN
        assert await courier.probe(destination_of(peer)) is None
        delivered, probed = peer.requests
    assert delivered.headers["authorization"] == "Bearer a key for the peer"
    assert delivered.certificate == "amtp.acme.test"
    assert "authorization" not in probed.headers


async def test_messages_that_wait_travel_together_where_the_peer_takes_batches(
    courier: PeerCourier, batching: FakePeer, post: Post
) -> None:
    batch = [post.message("bob@peer.test", "carol@peer.test"), post.message("bob@peer.test")]
    assert await courier.deliver(parcel(*batch), destination_of(batching)) == [TAKEN] * 3
    [request] = batching.requests
    assert request.batch
    assert [each["message_id"] for each in request.messages] == [each.letter.message_id for each in batch]


async def test_each_message_of_a_batch_has_its_own_outcome(
    courier: PeerCourier, batching: FakePeer, post: Post
) -> None:
    async def refuses_carol(exchange: Exchange) -> None:
        request = await exchange.read_body()
        receipts = [receipt(message, carol="AGENT_UNKNOWN") for message in request.messages]
        await exchange.answer(200, b"".join(json.dumps(each).encode() + b"\n" for each in receipts))

    batching.will(refuses_carol)
    batch = [post.message("bob@peer.test"), post.message("carol@peer.test"), post.message("bob@peer.test")]
    first, second, third = await courier.deliver(parcel(*batch), destination_of(batching))
    assert first == third == TAKEN
    assert isinstance(second, Refused)


async def test_messages_travel_one_by_one_where_batches_are_not_advertised(
    courier: PeerCourier, peer: FakePeer, post: Post
) -> None:
    batch = [post.message("bob@peer.test") for _ in range(20)]
    assert await courier.deliver(parcel(*batch), destination_of(peer)) == [TAKEN] * 20
    assert len(peer.requests) == 20
    assert not any(request.batch for request in peer.requests)


async def test_a_message_with_line_breaks_or_another_path_does_not_join_a_batch(
    courier: PeerCourier, batching: FakePeer, post: Post
) -> None:
    broken = post.message("bob@peer.test", idempotency_key="k", indent=1)
    relayed = post.message("bob@peer.test", hops=("relay.test",))
    outcomes = await courier.deliver(
        parcel(post.message("bob@peer.test"), broken, relayed, post.message("bob@peer.test")),
        destination_of(batching),
    )
    assert outcomes == [TAKEN] * 4
    assert sorted(len(request.messages) for request in batching.requests) == [1, 1, 2]


async def test_a_batch_stays_within_a_hundred_lines_and_the_peers_size(
    courier: PeerCourier, batching: FakePeer, post: Post
) -> None:
    many = [post.message("bob@peer.test") for _ in range(BATCH_LINES_MAX + 1)]
    assert await courier.deliver(parcel(*many), destination_of(batching)) == [TAKEN] * len(many)
    assert sorted(len(request.messages) for request in batching.requests) == [1, BATCH_LINES_MAX]
    batching.requests.clear()
    batching.max_size = 2500
    large = [post.message("bob@peer.test", payload="x" * 900) for _ in range(4)]
    assert await courier.deliver(parcel(*large), destination_of(batching)) == [TAKEN] * 4
    assert [len(request.messages) for request in batching.requests] == [2, 2]
    assert all(len(request.body) <= 2500 for request in batching.requests)


async def test_a_batch_refused_as_a_batch_goes_message_by_message_at_once(
    courier: PeerCourier, batching: FakePeer, post: Post
) -> None:
    batching.will(refuses(415, "UNSUPPORTED_MEDIA_TYPE"), accepts)
    batch = [post.message("bob@peer.test") for _ in range(3)]
    assert await courier.deliver(parcel(*batch), destination_of(batching)) == [TAKEN] * 3
    assert [request.batch for request in batching.requests] == [True, False, False, False]


async def test_a_batch_cut_off_in_its_answer_is_tried_again_as_a_whole(
    courier: PeerCourier, batching: FakePeer, post: Post
) -> None:
    batching.will(resets_after_body)
    outcomes = await courier.deliver(
        parcel(post.message("bob@peer.test"), post.message("bob@peer.test")), destination_of(batching)
    )
    assert [isinstance(each, Deferred) and each.blames for each in outcomes] == [True, True]
    assert len(batching.requests) == 1


async def test_connections_are_kept_for_the_next_message(
    courier: PeerCourier, peer: FakePeer, post: Post
) -> None:
    for _ in range(5):
        assert await outcome_of(courier, peer, post.message("bob@peer.test")) == TAKEN
    assert peer.connections == 1


@pytest.mark.parametrize(
    ("behaviour", "fault"),
    [
        (answers(200), None),
        (answers(404), None),
        (answers_endlessly(), None),
        (answers(502), "amtp.peer.test answered 502."),
    ],
)
async def test_a_probe_asks_whether_anybody_answers(
    courier: PeerCourier, peer: FakePeer, behaviour: Behaviour, fault: str | None
) -> None:
    peer.will(behaviour)
    assert await courier.probe(destination_of(peer)) == fault
    assert (peer.requests[0].method, peer.requests[0].path) == ("GET", "/health")


async def test_a_probe_says_what_is_wrong(courier: PeerCourier, authority: Authority) -> None:
    async with FakePeer(authority, expired=True).listening() as peer:
        fault = await courier.probe(destination_of(peer))
    assert fault is not None
    assert "expired" in fault


async def test_a_courier_that_is_cancelled_leaves_no_request_behind(
    courier: PeerCourier, peer: FakePeer, post: Post
) -> None:
    reached = asyncio.Event()

    async def hangs_and_tells(exchange: Exchange) -> None:
        reached.set()
        await hangs(exchange)

    peer.will(hangs_and_tells)
    delivering = asyncio.create_task(
        courier.deliver(parcel(post.message("bob@peer.test")), destination_of(peer))
    )
    await asyncio.wait_for(reached.wait(), 10)
    delivering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await delivering
