"""Acknowledgements with an answer: the agent's messages are accepted in the transaction that acknowledges.

1. The first acknowledgement of an entry sends its answer, once; a repeated one is told the ids of what was sent.
2. An acknowledgement sends nothing if another consumer holds the entry by now, or if there is none.
3. A message under a key seen before is the message of that key; other content under it refuses the whole
   acknowledgement.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from gateway.protocol.errors import AMTPError
from gateway.store.admitted import Admitted
from gateway.store.database import Database
from gateway.store.inbox.acknowledge import Acknowledgement, EntryName, Result, Riders, acknowledge_in
from gateway.store.intake.duplicates import repeat_in
from gateway.store.intake.insertion import insert
from gateway.store.intake.uniqueness import claim, hashes_of
from gateway.store.row_ids import Mint
from gateway.store.wakeups.topics import Topic, topics_of


@dataclass(frozen=True, slots=True)
class EntryAnswer:
    """An entry to acknowledge, and what its agent sends with that."""

    name: EntryName
    row: UUID | None = None  # the message it was written for; None: nothing is sent
    messages: tuple[Admitted, ...] = ()


@dataclass(slots=True)
class Answered:
    """The result: each entry's acknowledgement or refusal, and the accepted messages."""

    results: list[Acknowledgement | AMTPError] = field(default_factory=list)
    sent: list[Admitted] = field(default_factory=list)
    topics: set[Topic] = field(default_factory=set)


class Moved(Exception):
    """A name that means another entry by now: the answers written for the earlier one must not be sent."""


class NotSent(Exception):
    """A refusal of one of an answer's messages; `place` tells which."""

    def __init__(self, number: int, place: int, error: AMTPError) -> None:
        self.number = number
        self.place = place
        self.error = error


async def answer(
    database: Database,
    mint: Mint,
    agent: int,
    answers: Sequence[EntryAnswer],
    lease: UUID | None,
    riders: Riders = None,
) -> Answered:
    """Acknowledges all and accepts the answers, or changes nothing: raises Moved or NotSent."""
    answered = Answered()
    first: dict[UUID, Acknowledgement] = {}
    async with database.transaction() as connection:
        names = [each.name for each in answers]
        for number, result in enumerate(await acknowledge_in(connection, agent, names, lease, riders)):
            each = answers[number]
            if each.row is None or result.result is not Result.ACKNOWLEDGED or result.again:
                answered.results.append(result)
            elif result.row != each.row:
                raise Moved
            elif each.row in first:  # named twice in this very request
                answered.results.append(replace(first[each.row], again=True))
            else:
                sent = await _send(connection, mint, number, each, answered)
                await connection.execute(
                    "update entries set sent = $3 where message = $1 and agent = $2", each.row, agent, sent
                )
                first[each.row] = replace(result, sent=tuple(sent))
                answered.results.append(first[each.row])
    return answered


async def _send(connection: Any, mint: Mint, number: int, each: EntryAnswer, answered: Answered) -> list[str]:
    """Accepts the messages of one answer; returns their ids, those of repetitions being the originals'."""
    repeats = await claim(connection, [(admitted, hashes_of(admitted)) for admitted in each.messages])
    new = [admitted for admitted in each.messages if admitted.message.row not in repeats]
    if new:
        await insert(connection, mint(), new)
        answered.sent += new
        answered.topics |= topics_of(new)
    for place, admitted in enumerate(each.messages):
        if (seen := repeats.get(admitted.message.row)) is not None:
            try:
                answered.topics.update(await repeat_in(connection, mint, admitted, seen.row))
            except AMTPError as error:
                raise NotSent(number, place, error) from error
    ids = await _public_ids(connection, [seen.row for seen in repeats.values()])
    rows = {admitted.message.row: admitted.message.message_id for admitted in each.messages}
    return [ids.get(repeats[row].row, own) if row in repeats else own for row, own in rows.items()]


async def _public_ids(connection: Any, rows: Sequence[UUID]) -> Mapping[UUID, str]:
    if not rows:
        return {}
    found = await connection.fetch(
        "select id, coalesce(public_id, id::text) from messages where id = any($1)", rows
    )
    return dict(map(tuple, found))
