"""The door to dead letters: agents see those of what they sent; operators see all, replay and purge."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from gateway.admit.authenticate import Authenticator
from gateway.admit.caller import Caller
from gateway.admit.rules import require_admin
from gateway.features.operations.dead_letters import (
    DeadLetter,
    DeadLetters,
    Replayed,
    Which,
    dead_letter,
    dead_letters,
    original,
)
from gateway.features.operations.openapi import (
    FIND_LETTERS,
    PURGE_LETTER,
    PURGE_LETTERS,
    REPLAY_LETTER,
    REPLAY_LETTERS,
    SHOW_LETTER,
)
from gateway.features.operations.selection import (
    ChosenLetters,
    Replay,
    rate_of,
    which_of_body,
    which_of_query,
)
from gateway.http.answers import Answer, answer_json
from gateway.http.parameters import limit_of
from gateway.http.request import Request, bad_parameter
from gateway.http.roles import Role
from gateway.http.routing import Route
from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.timestamp import render_timestamp
from gateway.receive.agent_profile import BODY_BYTES_MAX, read_body
from gateway.receive.content import WITHHELD, ContentRule
from gateway.receive.status import envelope_of, viewer_of
from gateway.store.database import Database

OPERATORS = frozenset({Role.ADMIN})
READERS = frozenset({Role.AGENTS, Role.ADMIN})
NUMBER = re.compile(r"[0-9]{1,18}")
FORGOTTEN = (
    "More than 14 days have passed since the message was accepted: a gateway that got it may have forgotten so, "
    "and deliver it twice."
)


class DeadLetterDoor:
    def __init__(
        self,
        *,
        database: Database,
        authenticator: Authenticator,
        dead_letters: DeadLetters,
        content: ContentRule,
    ) -> None:
        self._database = database
        self._authenticator = authenticator
        self._dead_letters = dead_letters
        self._content = content

    def routes(self) -> list[Route]:
        path = "/v1/dead-letters"
        return [
            Route("GET", path, self.find, READERS, FIND_LETTERS),
            Route("GET", f"{path}/{{number}}", self.show, READERS, SHOW_LETTER),
            Route("DELETE", f"{path}/{{number}}", self.purge, OPERATORS, PURGE_LETTER),
            Route("POST", f"{path}/{{number}}/replay", self.replay, OPERATORS, REPLAY_LETTER),
            Route("POST", f"{path}/replay", self.replay_many, OPERATORS, REPLAY_LETTERS),
            Route("POST", f"{path}/purge", self.purge_many, OPERATORS, PURGE_LETTERS),
        ]

    async def find(self, request: Request) -> Answer:
        own = own_of(await self._authenticator.caller(request))
        limit = limit_of(request.query)
        text = request.query.get("cursor")
        if text is not None and NUMBER.fullmatch(text) is None:
            raise bad_parameter("cursor", "must be one that an answer gave")
        found = await dead_letters(
            self._database,
            which_of_query(request.query),
            own=own,
            before=None if text is None else int(text),
            limit=limit + 1,
        )
        has_more = len(found) > limit
        return answer_json(
            {
                "dead_letters": [render_letter(letter) for letter in found[:limit]],
                "count": min(len(found), limit),
                "has_more": has_more,
                "cursor": str(found[limit - 1].number) if has_more else None,
            }
        )

    async def show(self, request: Request) -> Answer:
        caller = await self._authenticator.caller(request)
        letter = await self._find(request, own_of(caller))
        body = await original(self._database, letter.number)
        if body is None:
            raise _not_found()
        what = f"dead letter {letter.number}"
        if await self._content.opens(request, caller, letter.message_id, what):
            return answer_json({**render_letter(letter), "original_message": msgspec.Raw(body)})
        return answer_json(
            {**render_letter(letter), "original_message": envelope_of(body), "withheld": WITHHELD}
        )

    async def replay(self, request: Request) -> Answer:
        actor = await self._operator(request)
        letter = await self._decidable(request)
        replayed = await self._dead_letters.replay(Which(number=letter.number), actor=actor)
        if not replayed:
            raise AMTPError(Code.CONFLICT, "Its message expired, or it is no longer dead.")
        (one,) = replayed
        return answer_json(
            {
                "dead_letter": letter.number,
                "status": "replayed",
                "message_id": one.message_id,
                "recipient": one.address,
                "next_attempt": render_timestamp(one.due),
                "warnings": _warnings(replayed),
            }
        )

    async def purge(self, request: Request) -> Answer:
        actor = await self._operator(request)
        letter = await self._decidable(request)
        if letter.agent is not None:
            place = f"/v1/inbox/{letter.recipient}/dead-letters"
            raise AMTPError(
                Code.CONFLICT, f"It was delivered: its agent lets go of it, at {place}; replay it."
            )
        if not await self._dead_letters.purge(Which(number=letter.number), actor=actor):
            raise AMTPError(Code.CONFLICT, "Somebody else decides about it right now.")
        return answer_json({"dead_letter": letter.number, "status": "purged"})

    async def replay_many(self, request: Request) -> Answer:
        actor = await self._operator(request)
        wanted = read_body(await request.json_body(BODY_BYTES_MAX), Replay)
        which, rate = which_of_body(wanted), rate_of(wanted)
        matched = await self._dead_letters.count(which, replayable=True)
        replayed: Sequence[Replayed] = ()
        if not wanted.dry_run:
            replayed = await self._dead_letters.replay(
                which, actor=actor, limit=wanted.limit, per_second=rate
            )
        return answer_json(
            {
                "dry_run": wanted.dry_run,
                "matched": matched,
                "replayed": len(replayed),
                "has_more": matched > wanted.limit,
                "last_attempt_due": render_timestamp(replayed[-1].due) if replayed else None,
                "forgotten": sum(one.forgotten for one in replayed),
                "warnings": _warnings(replayed),
            }
        )

    async def purge_many(self, request: Request) -> Answer:
        actor = await self._operator(request)
        wanted = read_body(await request.json_body(BODY_BYTES_MAX), ChosenLetters)
        which = which_of_body(wanted)
        matched = await self._dead_letters.count(which, replayable=False)
        purged = 0
        if not wanted.dry_run:
            purged = await self._dead_letters.purge(which, actor=actor, limit=wanted.limit)
        return answer_json(
            {
                "dry_run": wanted.dry_run,
                "matched": matched,
                "purged": purged,
                "has_more": matched > wanted.limit,
            }
        )

    async def _operator(self, request: Request) -> str:
        return require_admin(await self._authenticator.caller(request))

    async def _find(self, request: Request, own: str | None) -> DeadLetter:
        text = request.params["number"]
        letter = None
        if NUMBER.fullmatch(text):
            letter = await dead_letter(self._database, int(text), own=own)
        if letter is None:
            raise _not_found()
        return letter

    async def _decidable(self, request: Request) -> DeadLetter:
        letter = await self._find(request, None)
        if letter.replayed_at is not None:
            raise AMTPError(Code.CONFLICT, "It was replayed already; a new failure has a letter of its own.")
        return letter


def own_of(caller: Caller) -> str | None:
    """Returns the agent whose messages' dead letters the caller may see; None for an operator, who sees all."""
    viewer = viewer_of(caller)
    if viewer.operator:
        return None
    if viewer.agent is None:
        raise AMTPError(Code.POLICY_DENIED, "This takes an agent's own key, or an admin key.")
    return viewer.agent


def render_letter(letter: DeadLetter) -> dict[str, Any]:
    return {
        "dead_letter": letter.number,
        "kind": "undelivered" if letter.agent is None else "undigested",
        "message_id": letter.message_id,
        "sender": letter.sender,
        "recipient": letter.address,
        "failure_code": letter.code,
        "failure_reason": letter.reason,
        "failure_details": None if letter.details is None else msgspec.Raw(letter.details.encode()),
        "attempts": letter.attempts,
        "first_attempt": _moment(letter.first_attempt),
        "last_attempt": _moment(letter.last_attempt),
        "dlq_timestamp": render_timestamp(letter.at),
        "accepted_at": render_timestamp(letter.accepted_at),
        "replayed_at": _moment(letter.replayed_at),
    }


def _moment(at: Any) -> str | None:
    return None if at is None else render_timestamp(at)


def _warnings(replayed: Sequence[Replayed]) -> list[str]:
    return [FORGOTTEN] if any(one.forgotten for one in replayed) else []


def _not_found() -> AMTPError:
    return AMTPError(Code.NOT_FOUND, "There is no dead letter of this number that is yours to see.")
