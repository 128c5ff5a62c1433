"""Acknowledgements with answers: a reply and messages, accepted in the same transaction.

1. Messages are checked before the transaction, by every rule for messages. One refused recipient refuses the
   acknowledgement of its entry, so that no partial answer is sent.
2. A reply answers the message that the given id names. If the id names another one by the time of the transaction,
   all is tried again.
3. Repeating an acknowledgement sends nothing more, and returns what the first one sent.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TypeVar
from uuid import UUID

from gateway.admit.caller import Caller
from gateway.admit.residents import Resident
from gateway.flow.accept import Accept, Entrance
from gateway.http.limits import Lately
from gateway.net.shares import Pot
from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.message import Message
from gateway.protocol.status import Status
from gateway.receive.inbox_query import AskedEntry, SaidReply
from gateway.receive.parsing import Parsing
from gateway.report.interests import Interests
from gateway.report.replies import BY_HAND, reply_to
from gateway.store.admitted import Admitted
from gateway.store.inbox.acknowledge import Acknowledgement, Meant, Result, Riders, acknowledge, look
from gateway.store.intake.answered import Answered, EntryAnswer, Moved, NotSent, answer
from gateway.store.queue.deliveries import Letter, letters
from gateway.store.runtime import Runtime

T = TypeVar("T")

ORIGINALS_BYTES = 8 * 1024 * 1024  # of answered messages, in memory at a time
MOVES_MAX = 3  # times a name may come to mean another message during one request

Outcome = Acknowledgement | AMTPError


@dataclass(frozen=True, slots=True)
class Consumer:
    """The caller that acknowledges, with its inbox and lease."""

    owner: Resident
    caller: Caller
    lease: UUID | None


@dataclass(slots=True)
class _Round:
    """One try at a request: what is decided and what is to be committed, by the number of the entry."""

    entering: AsyncExitStack
    decided: dict[int, Outcome] = field(default_factory=dict)
    answers: dict[int, EntryAnswer] = field(default_factory=dict)
    fields: dict[int, list[str]] = field(default_factory=dict)  # where each message of an answer stands
    entered: list[Entrance] = field(default_factory=list)


class Answering:
    """The acknowledging of inbox entries, with the messages sent along."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        accept: Accept,
        parsing: Parsing,
        slots: Pot,
        interests: Interests,
        room: Callable[[], bool],
    ) -> None:
        self._database = runtime.database
        self._clock = runtime.clock
        self._mint = runtime.row_ids
        self._ring = runtime.ring
        self._accept = accept
        self._interests = interests
        self._parsing = parsing
        self._slots = slots
        self._room = Lately(room)  # whether the disk has room for more

    async def read(self, parse: Callable[[bytes], T], body: bytes, caller: Caller) -> T:
        """Parses the body of an acknowledgement without blocking the event loop."""
        return await self._parsing.read(parse, body, caller.holder)

    async def acknowledge(self, consumer: Consumer, entries: Sequence[AskedEntry]) -> Sequence[Outcome]:
        """Acknowledges entries; returns the outcome of each, in order."""
        if not any(entry.said for entry in entries):
            names = [entry.name for entry in entries]
            return await acknowledge(
                self._database, consumer.owner.id, names, consumer.lease, self._riders(consumer)
            )
        if not self._room():
            raise AMTPError(
                Code.TEMPORARY_FAILURE, "The gateway's disk is nearly full; try again later.", retry_after=60
            )
        with self._slots.held(consumer.caller.holder):
            for _ in range(MOVES_MAX):
                try:
                    return await self._try(consumer, entries)
                except Moved:
                    continue
        raise AMTPError(
            Code.CONFLICT,
            "Others acknowledge messages of the same id just now: show the lease that you hold yours under.",
        )

    def _riders(self, consumer: Consumer) -> Riders:
        return None if self._interests.idle else partial(self._interests.acknowledged, consumer.owner.name)

    async def _try(self, consumer: Consumer, entries: Sequence[AskedEntry]) -> list[Outcome]:
        async with AsyncExitStack() as entering:
            now = _Round(entering)
            await self._prepare(now, consumer, entries)
            answered = await self._commit(now, consumer)
            sent = {admitted.message.row for admitted in answered.sent}
            for entrance in now.entered:
                if entrance.message.row in sent:
                    entrance.committed()
        self._ring(answered.topics)
        outcomes = now.decided | dict(
            zip((n for n in now.answers if n not in now.decided), answered.results, strict=True)
        )
        return [outcomes[number] for number in range(len(entries))]

    async def _prepare(self, now: _Round, consumer: Consumer, entries: Sequence[AskedEntry]) -> None:
        """Checks all messages of a request."""
        names = [entry.name for entry in entries]
        meant = await look(self._database, consumer.owner.id, names, consumer.lease)
        answered: dict[UUID, list[tuple[int, Meant]]] = {}
        for number, (entry, found) in enumerate(zip(entries, meant, strict=True)):
            if not entry.said or (found and found.done):
                now.answers[number] = EntryAnswer(entry.name)
            elif found is None:
                now.decided[number] = Acknowledgement(Result.UNKNOWN)
            else:
                answered.setdefault(found.row, []).append((number, found))
        async for row, original in self._originals(answered):
            for number, found in answered.pop(row):
                try:
                    await self._enter(now, number, consumer, entries[number], found, original)
                except AMTPError as refusal:
                    now.decided[number] = refusal
        for number, _ in chain.from_iterable(answered.values()):
            now.decided[number] = Acknowledgement(Result.UNKNOWN)

    async def _originals(self, rows: Iterable[UUID]) -> AsyncIterator[tuple[UUID, Letter]]:
        """Yields the answered messages that still exist, without holding all of them in memory."""
        left = sorted(rows)
        while left:
            found = await letters(self._database, left, bytes_max=ORIGINALS_BYTES)
            found = found or await letters(self._database, left[:1])  # a single one may be larger
            last = max(found, default=left[0])
            left = [row for row in left if row > last]
            for row in sorted(found):
                yield row, found.pop(row)

    async def _enter(
        self, now: _Round, number: int, consumer: Consumer, entry: AskedEntry, found: Meant, original: Letter
    ) -> None:
        """Checks the messages of one entry, all or nothing."""
        messages = []
        fields = now.fields.setdefault(number, [])
        for place, message in await self._read(consumer, entry, original):
            with standing(place):
                admitted = await self._admit(now, message, consumer)
            if admitted.entries or admitted.deliveries:  # a heartbeat leaves nothing behind
                messages.append(admitted)
                fields.append(place)
        now.answers[number] = EntryAnswer(entry.name, found.row, tuple(messages))

    async def _read(
        self, consumer: Consumer, entry: AskedEntry, original: Letter
    ) -> list[tuple[str, Message]]:
        """Parses the messages of one entry; returns each with its field in the body."""
        read = []
        if entry.said.reply is not None:
            place = f"{entry.field}reply"
            with standing(place):
                read.append((place, await self._reply(consumer, entry.said.reply, original)))
        for index, raw in enumerate(entry.said.messages):
            place = f"{entry.field}messages[{index}]"
            with standing(place):
                message = await self._parsing.message(
                    raw, holder=consumer.caller.holder, row=self._mint(), now=self._clock.now(), local=True
                )
            read.append((place, message))
        return read

    async def _reply(self, consumer: Consumer, reply: SaidReply, original: Letter) -> Message:
        written = partial(
            reply_to,
            original.body,
            responder=consumer.owner.name,
            proven=original.proven,
            row=self._mint(),
            now=self._clock.now(),
            submitted=BY_HAND,
            # Accepted once, with the acknowledgement: it needs no key, and can't collide with that of another reply.
            members={**reply.members, "idempotency_key": None},
            headers=reply.headers,
        )
        size = len(original.body) + len(reply.payload)
        message = await self._parsing.read(written, reply.payload, consumer.caller.holder, size)
        assert message is not None, "an agent may answer by hand whatever it likes"
        return message

    async def _admit(self, now: _Round, message: Message, consumer: Consumer) -> Admitted:
        """Checks a message for all of its recipients."""
        refuse_apart(message, consumer.owner)
        entrance = await now.entering.enter_async_context(self._accept.entering(message, consumer.caller))
        places = entrance.places
        if places.refusals:
            index = [state.status for state in places.states].index(Status.FAILED)
            raise at(places.refusals[0], f"recipients[{index}]")
        now.entered.append(entrance)
        return entrance.admitted

    async def _commit(self, now: _Round, consumer: Consumer) -> Answered:
        """Commits the entries, except answers that repeat an idempotency key with other content."""
        while True:
            left = {n: each for n, each in now.answers.items() if n not in now.decided}
            try:
                return await answer(
                    self._database,
                    self._mint,
                    consumer.owner.id,
                    list(left.values()),
                    consumer.lease,
                    self._riders(consumer),
                )
            except NotSent as refusal:
                number = list(left)[refusal.number]
                now.decided[number] = at(refusal.error, now.fields[number][refusal.place])


def refuse_apart(message: Message, owner: Resident) -> None:
    """Refuses a message that can't be sent with an acknowledgement, only by itself."""
    if message.sender.name != owner.name:
        raise AMTPError(
            Code.SENDER_NOT_ALLOWED,
            f"An acknowledgement of {owner.name} sends messages of that agent alone.",
            {"field": "sender"},
        )
    apart: Mapping[str, bool] = {
        "headers.repeat": message.headers.repeat is not None,
        "headers.delivery": message.headers.delivery == "best_effort",
    }
    for name, asked in apart.items():
        if asked:
            raise AMTPError(
                Code.INVALID_MESSAGE_FORMAT,
                f"{name} asks for what an acknowledgement can't wait for: send that message by itself.",
                {"field": name},
            )


@contextmanager
def standing(place: str) -> Iterator[None]:
    """Puts the message's field in the body in front of the fields of its errors."""
    try:
        yield
    except AMTPError as error:
        raise at(error, place) from error


def at(error: AMTPError, place: str) -> AMTPError:
    """Returns the error with `place` in front of its field."""
    details = dict(error.details or {})
    inner = details.get("field")
    details["field"] = f"{place}.{inner}" if inner else place
    return AMTPError(error.code, f"{place}: {error.message}", details, error.retry_after)
