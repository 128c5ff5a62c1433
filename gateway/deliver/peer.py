"""The courier to other gateways: one POST for each message and gateway, or one for a batch of messages.

1. A copy carries the same ids on every attempt, so a peer whose answer was lost does not take it twice.
2. A message larger than the peer's limit is not sent.
3. Batches are sent only to peers that advertise them. A message whose bytes contain a line break travels alone, and
   messages that came by different gateways don't share a batch: the Via header applies to the whole request.
4. A batch that is refused as a batch is sent again at once, message by message.
5. Before a repeat that fails at the peer is given up, the peer is asked for the message's status.
6. Identifiers that some implementations refuse are replaced, unless the peer advertises that it takes them.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from gateway import __version__
from gateway.config.sections import PeerSettings
from gateway.config.settings import Config
from gateway.deliver.answer import AskedRecipient, HttpReply, delivered_in, outcomes_of, outcomes_of_lines
from gateway.deliver.courier import COURIER_SECONDS, Consignment, Parcel
from gateway.deliver.outcome import Deferred, Delivered, Outcome, Refused, may_be_last, tidy
from gateway.net.outbound import Kind, Outbound, OutboundError
from gateway.net.tls import client_context
from gateway.protocol.discovery import SIZE_BYTES_DEFAULT
from gateway.protocol.errors import Code
from gateway.protocol.identifiers import FEATURE, derived_id, replace_identifiers, unfit
from gateway.protocol.members import members_of, render, with_recipients
from gateway.route.destination import Destination
from gateway.store.clock import Clock
from gateway.store.queue.deliveries import Delivery, Letter

PROBE_SECONDS = 10.0
PROBE_BYTES_MAX = 65_536
BATCH_LINES_MAX = 100
BATCH_BYTES_MAX = SIZE_BYTES_DEFAULT  # or the peer's max-size, if that is less
LONG_BYTES = 256 * 1024  # of an answer that is read beside the event loop
BATCH_ANSWER_BYTES_MAX = 16 * 1024 * 1024  # a hundred receipts with a thousand recipients each
REQUESTS_MAX = 8  # of one parcel at once
USER_AGENT = f"AMTP/1.0 (amtp-gateway/{__version__})"
HEADERS = {"X-AMTP-Version": "1.0", "User-Agent": USER_AGENT}
JSON, LINES = "application/json", "application/x-ndjson"

# Texts for agents where those of the HTTP client name internal addresses.
INSIDE = {
    Kind.REFUSED_ADDRESS: "is not at a public address, nor in outbound.allow_networks",
    Kind.RESOLVE: "has no address that the DNS could tell",
    Kind.CONNECT: "does not take connections",
}

# Finds the ids by which a domain's gateway knows the messages that are answered.
KnownThere = Callable[[str, Collection[str]], Awaitable[Mapping[str, str]]]

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Copy:
    """A message as one destination gets it."""

    consignment: Consignment
    body: bytes
    message_id: str  # as the peer gets it

    @property
    def asked(self) -> tuple[AskedRecipient, ...]:
        return tuple(AskedRecipient(each.recipient, each.attempts) for each in self.consignment.deliveries)

    @property
    def letter(self) -> Letter:
        return self.consignment.letter


@dataclass(frozen=True, slots=True)
class Access:
    """The configured access to a peer: TLS, extra headers, or plain HTTP."""

    tls: ssl.SSLContext | None = None
    headers: tuple[tuple[str, str], ...] = ()
    plain: bool = False


@dataclass(frozen=True, slots=True)
class _Trip:
    """One attempt at one destination."""

    destination: Destination
    access: Access
    end: float  # on the loop's clock
    requests: asyncio.Semaphore


_USUAL = Access()


class PeerCourier:
    """The courier to other gateways."""

    def __init__(
        self,
        outbound: Outbound,
        config: Config,
        known_there: KnownThere,
        clock: Clock,
        *,
        seconds: float = COURIER_SECONDS,
    ) -> None:
        self._outbound = outbound
        self._known_there = known_there
        self._clock = clock
        self._attempts_max = config.queue.attempts_max
        self._seconds = seconds
        self._hostname = config.hostname
        self._answer_bytes_max = config.outbound.answer_bytes
        self.adopt(config)

    def adopt(self, config: Config) -> None:
        """Takes the peers of a changed configuration; raises TlsError where their files can't be used."""
        ca_file = config.outbound.ca_file
        self._accesses = {domain: access_of(peer, ca_file) for domain, peer in config.peers.items()}

    async def deliver(self, parcel: Parcel, destination: Destination) -> Sequence[Outcome]:
        """Returns an outcome for each of `parcel.deliveries`, in that order."""
        copies = await self._copies(parcel, destination)
        end = asyncio.get_running_loop().time() + self._seconds
        trip = _Trip(destination, self._access(destination), end, asyncio.Semaphore(REQUESTS_MAX))
        if len(copies) == 1 and len(copies[0].body) <= destination.max_size:
            return await self._hand_over_alone(copies[0], trip)
        pieces = batches([copy for copy in copies if len(copy.body) <= destination.max_size], destination)
        handed: dict[UUID, Sequence[Outcome]] = {}
        for piece, outcomes in zip(pieces, await _each(self._hand_over, pieces, trip), strict=True):
            handed |= {copy.letter.row: found for copy, found in zip(piece, outcomes, strict=True)}
        too_large = Refused(
            Code.MESSAGE_TOO_LARGE, f"{destination.host} takes {destination.max_size} bytes at most."
        )
        return [
            outcome
            for copy in copies
            for outcome in handed.get(copy.letter.row) or [too_large] * len(copy.asked)
        ]

    async def probe(self, destination: Destination) -> str | None:
        """Returns None where something answers there; else what is wrong."""
        access = self._access(destination)
        try:
            async with self._outbound.stream(
                destination.url("/health"),
                HEADERS,
                deadline_seconds=PROBE_SECONDS,
                answer_bytes_max=PROBE_BYTES_MAX,
                tls=access.tls,
                plain=access.plain,
            ) as answer:
                # A gateway that answers at all is well; a 5xx is what a proxy says for one that does not.
                return None if answer.status < 500 else f"{destination.host} answered {answer.status}."
        except OutboundError as error:
            return told_of(error, destination.host)

    async def _copies(self, parcel: Parcel, destination: Destination) -> list[_Copy]:
        if FEATURE in destination.features:
            return [_copy(each) for each in parcel.consignments]
        strange = [unfit(members_of(each.letter.body)) for each in parcel.consignments]
        answered = {found["in_reply_to"] for found in strange if "in_reply_to" in found}
        known = await self._known_there(destination.domain, answered) if answered else {}
        return [
            _portable_copy(each, found, known) if found else _copy(each)
            for each, found in zip(parcel.consignments, strange, strict=True)
        ]

    async def _hand_over(self, piece: Sequence[_Copy], trip: _Trip) -> Sequence[Sequence[Outcome]]:
        if len(piece) == 1:
            return [await self._hand_over_alone(piece[0], trip)]
        body = b"".join(copy.body + b"\n" for copy in piece)
        answer_bytes_max = min(self._answer_bytes_max * len(piece), BATCH_ANSWER_BYTES_MAX)
        answer = await self._post(body, LINES, piece[0].letter.hops, answer_bytes_max, trip)
        if isinstance(answer, Deferred):
            return [[answer] * len(copy.asked) for copy in piece]
        asked = [(copy.message_id, copy.asked) for copy in piece]
        outcomes = await _read(outcomes_of_lines, answer, asked, trip.destination.host)
        if outcomes is None:
            return await _each(self._hand_over_alone, piece, trip)
        if answer.status < 500:
            return outcomes
        return [await self._made_sure(*each, trip) for each in zip(piece, outcomes, strict=True)]

    async def _hand_over_alone(self, copy: _Copy, trip: _Trip) -> Sequence[Outcome]:
        answer = await self._post(copy.body, JSON, copy.letter.hops, self._answer_bytes_max, trip)
        if isinstance(answer, Deferred):
            return [answer] * len(copy.asked)
        outcomes = await _read(outcomes_of, answer, copy.asked, trip.destination.host)
        return outcomes if answer.status < 500 else await self._made_sure(copy, outcomes, trip)

    async def _made_sure(self, copy: _Copy, outcomes: Sequence[Outcome], trip: _Trip) -> Sequence[Outcome]:
        """Returns the outcomes of a failed attempt; of the last one, as the peer's status of the message says.

        A gateway that has the message but no longer its key fails every repeat.
        """
        deliveries, now = copy.consignment.deliveries, self._clock.now()
        if not any(
            each.attempts > 1 and may_be_last(each.attempts, self._attempts_max, each.expires_at, now)
            for each in deliveries
        ):
            return outcomes
        delivered = await self._delivered_there(copy, trip)
        there = Delivered(f"amtp:{trip.destination.host}")
        return [
            there if each.recipient in delivered and isinstance(outcome, Deferred) else outcome
            for each, outcome in zip(deliveries, outcomes, strict=True)
        ]

    async def _delivered_there(self, copy: _Copy, trip: _Trip) -> Collection[str]:
        """Returns the recipients whom the peer says it delivered the message to; none where it does not tell."""
        async with trip.requests:
            try:
                response = await self._outbound.get(
                    trip.destination.url(f"/v1/messages/{copy.message_id}/status"),
                    {**HEADERS, **dict(trip.access.headers)},
                    deadline_seconds=PROBE_SECONDS,
                    answer_bytes_max=self._answer_bytes_max,
                    tls=trip.access.tls,
                    plain=trip.access.plain,
                )
            except OutboundError:
                return ()
        reply = HttpReply(response.status, response.headers, response.body)
        return delivered_in(reply, copy.message_id, [each.recipient for each in copy.asked])

    async def _post(
        self, body: bytes, kind: str, hops: Sequence[str], answer_bytes_max: int, trip: _Trip
    ) -> HttpReply | Deferred:
        """Returns the answer, or why there is none."""
        via = ", ".join([f"1.1 {hop}" for hop in (*hops, self._hostname)])
        async with trip.requests:
            seconds = trip.end - asyncio.get_running_loop().time()
            if seconds <= 0:
                return Deferred(Code.RECIPIENT_UNAVAILABLE, "There was no time left for it in this attempt.")
            try:
                response = await self._outbound.post(
                    trip.destination.url("/v1/messages"),
                    body,
                    {**HEADERS, "Content-Type": kind, "Via": via, **dict(trip.access.headers)},
                    deadline_seconds=seconds,
                    answer_bytes_max=answer_bytes_max,
                    tls=trip.access.tls,
                    plain=trip.access.plain,
                )
            except OutboundError as error:
                return Deferred(
                    Code.RECIPIENT_UNAVAILABLE,
                    tidy(told_of(error, trip.destination.host)),
                    blames=True,
                    unreachable=not error.sent,
                    inside=tidy(trouble(error)) if error.kind in INSIDE else None,
                )
        return HttpReply(response.status, response.headers, response.body)

    def _access(self, destination: Destination) -> Access:
        return self._accesses.get(destination.domain, _USUAL)


def batches(copies: Sequence[_Copy], destination: Destination) -> list[list[_Copy]]:
    """Groups the copies into requests: batches where the peer takes them, else one copy each."""
    if "batch" not in destination.features:
        return [[copy] for copy in copies]
    bytes_max = min(BATCH_BYTES_MAX, destination.max_size)
    pieces: list[list[_Copy]] = []
    growing: dict[tuple[str, ...], tuple[list[_Copy], int]] = {}  # with its bytes, by the path behind it
    for copy in copies:
        if b"\n" in copy.body or b"\r" in copy.body:
            pieces.append([copy])
            continue
        piece, size = growing.get(copy.letter.hops, ([], 0))
        size += len(copy.body) + 1
        if not piece or len(piece) == BATCH_LINES_MAX or size > bytes_max:
            piece, size = [], len(copy.body) + 1
            pieces.append(piece)
        piece.append(copy)
        growing[copy.letter.hops] = piece, size
    return pieces


def trouble(error: OutboundError) -> str:
    """Returns why a request got no answer, as a sentence for operators."""
    if error.kind is Kind.REFUSED_ADDRESS:
        return (
            f"{error.message}: gateways are reached at public addresses, or in outbound.allow_networks only."
        )
    return f"{error.message}."


def told_of(error: OutboundError, host: str) -> str:
    """Returns why a request got no answer, as agents are told: without what internal names resolve to, or name servers."""
    return f"{host} {INSIDE[error.kind]}." if error.kind in INSIDE else trouble(error)


async def _read(
    judge: Callable[[HttpReply, Any, str], Result], answer: HttpReply, asked: Any, host: str
) -> Result:
    """Judges an answer; a long one in a thread, so that the event loop goes on meanwhile."""
    if len(answer.body) > LONG_BYTES:
        return await asyncio.to_thread(judge, answer, asked, host)
    return judge(answer, asked, host)


async def _each(
    work: Callable[[Item, _Trip], Coroutine[Any, Any, Result]], items: Sequence[Item], trip: _Trip
) -> list[Result]:
    """Runs `work` on each item concurrently; returns the results."""
    if len(items) == 1:
        return [await work(items[0], trip)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work(item, trip)) for item in items]
    return [task.result() for task in tasks]


def _copy(consignment: Consignment, body: bytes | None = None, message_id: str | None = None) -> _Copy:
    letter = consignment.letter
    copied = with_recipients(
        body or letter.body,
        [written_there(delivery) for delivery in consignment.deliveries],
        idempotency_key=key_of(letter.row),
    )
    return _Copy(consignment, copied, message_id or letter.message_id)


def _portable_copy(consignment: Consignment, strange: Mapping[str, str], known: Mapping[str, str]) -> _Copy:
    """Returns a copy with identifiers that every implementation takes, the same on every attempt."""
    letter = consignment.letter
    members = replace_identifiers(
        members_of(letter.body),
        strange,
        row=letter.row,
        sender=letter.sender,
        in_reply_to=known.get(strange.get("in_reply_to", "")),
    )
    return _copy(consignment, render(members), derived_id(letter.row) if "message_id" in strange else None)


def written_there(delivery: Delivery) -> str:
    """Returns the recipient's address in the form its gateway looks up: some compare the domain as it is written."""
    local, _, domain = delivery.address.rpartition("@")
    return delivery.address if domain == delivery.destination else f"{local}@{delivery.destination}"


def key_of(row: UUID) -> str:
    """Returns the key for a message without one: the same on every attempt. Some gateways take a UUIDv4 alone."""
    return str(UUID(bytes=row.bytes, version=4))


def access_of(peer: PeerSettings, ca_file: Path | None) -> Access:
    own = peer.ca_file or peer.certificate_file
    return Access(
        tls=client_context(peer.ca_file, peer.certificate_file, peer.key_file, more=ca_file) if own else None,
        headers=(("Authorization", f"Bearer {peer.bearer}"),) if peer.bearer else (),
        plain=peer.plain_http,
    )
