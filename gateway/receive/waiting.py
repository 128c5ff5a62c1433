"""Answers that wait: for a reply to the message (`Prefer: wait=N`), or for the outcome of a best_effort delivery.

1. The wait begins after the commit, and holds neither a slot of admission nor the body.
2. A reply is shown as it lies in the sender's inbox, to callers who may open that; it stays there.
3. If a wait fails, the message is accepted all the same, and the answer says so.
"""

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from gateway.admit.authenticate import Authenticator
from gateway.admit.caller import Caller
from gateway.admit.inbox_rule import inbox_rule
from gateway.admit.residents import Resident, Residents
from gateway.flow.accept import Accept
from gateway.http.answers import JSON, Answer, answer_json, encode_json
from gateway.http.request import Request
from gateway.journal.journal import Journal
from gateway.net.shares import Pot
from gateway.protocol.address import Address
from gateway.protocol.errors import AMTPError
from gateway.protocol.message import Message
from gateway.protocol.status import Acceptance, Status, brought_up_to_date, render_acceptance
from gateway.receive.held_open import HeldOpen
from gateway.receive.inbox_items import render_item
from gateway.store.wakeups.bell import Ear
from gateway.store.wakeups.replies import Replies, ReplyQuestion

WAIT_SECONDS_MAX = 60
_WAIT = re.compile(r'\s*wait\s*=\s*"?([0-9]{1,9})"?\s*(?:;.*)?', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SentMessage:
    """The part of a message that is kept while its sender waits, without the body."""

    sender: Address
    recipients: tuple[str, ...]  # names
    immediate: bool


def sent(message: Message, *, immediate: bool) -> SentMessage:
    return SentMessage(message.sender, tuple(recipient.name for recipient in message.recipients), immediate)


def wait_seconds(preferences: Sequence[str]) -> int:
    """Returns the seconds that `Prefer` asks to wait. Unknown preferences are ignored, as RFC 7240 says."""
    for preference in ",".join(preferences).split(","):
        if asked := _WAIT.fullmatch(preference):
            return min(int(asked[1]), WAIT_SECONDS_MAX)
    return 0


class ReplyWait:
    def __init__(
        self,
        *,
        accept: Accept,
        replies: Replies,
        residents: Residents,
        authenticator: Authenticator,
        journal: Journal,
        held_open: HeldOpen,
        waits: Pot,
    ) -> None:
        self._accept = accept
        self._replies = replies
        self._residents = residents
        self._authenticator = authenticator
        self._journal = journal
        self._held_open = held_open
        self._waits = waits

    async def answer(
        self, request: Request, caller: Caller, sent: SentMessage, acceptance: Acceptance, seconds: int
    ) -> Answer:
        """Returns the answer to one message once there is a reply or outcome, or the time is over."""
        request.let_body_go()
        acceptance = await self.outcome(request, sent, acceptance)
        status = 200 if sent.immediate and _delivered(acceptance) else 202
        waits = seconds and acceptance.schedule is None
        owner = await self._owner(caller, sent.sender) if waits else None
        if owner is None or acceptance.row is None:
            return answer_json(render_acceptance(acceptance), status)
        applied = (("Preference-Applied", f"wait={seconds}"),)
        asked = ReplyQuestion(
            acceptance.row,
            acceptance.message_id,
            owner.id,
            owner.name,
            sent.recipients,
            acceptance.status == "queued",
        )
        try:
            with self._waits.held(request.holder):
                permit = _Permit(self._held_open, self._authenticator, request, sent.sender)
                heard = await self._replies.wait(asked, seconds, request.ending, permit)
        except AMTPError:  # too many wait already
            return answer_json(render_acceptance(acceptance), status)
        acceptance = brought_up_to_date(acceptance, sent.recipients, heard.states)
        if heard.reply is None or not await permit.holds():
            return answer_json(render_acceptance(acceptance), status, applied)
        self._journal.fetched(owner.name, 1)
        body = b'%b,"reply":%b}' % (
            encode_json(render_acceptance(acceptance))[:-1],
            render_item(heard.reply, owner.name),
        )
        return Answer(200, body, JSON, applied)

    async def outcome(self, request: Request, sent: SentMessage, acceptance: Acceptance) -> Acceptance:
        """Returns the acceptance; for a best_effort message, once the outcome is known."""
        if not sent.immediate:
            return acceptance
        return await self._accept.outcome(acceptance, sent.recipients, request.ending)

    async def _owner(self, caller: Caller, sender: Address) -> Resident | None:
        """Returns the sender if the caller may open its inbox; other keys that may send for it can't wait for replies."""
        try:
            inbox_rule(caller, sender)
            return (await self._residents.resolve([sender.name])).get(sender.name)
        except AMTPError:
            return None


@dataclass(frozen=True, slots=True)
class _Permit:
    """The right to wait for a sender's replies, by the key of the request."""

    held_open: HeldOpen
    authenticator: Authenticator
    request: Request
    sender: Address

    def listening(self, ear: Ear, /) -> AbstractContextManager[None]:
        return self.held_open.listening((self.sender.name,), ear)

    async def ended(self) -> bool:
        """Returns whether the key has ended; False if unknown because the database is down."""
        try:
            await self._ask()
        except AMTPError as refusal:
            return refusal.status < 500
        return False

    async def holds(self) -> bool:
        """Returns whether the key is still valid after the wait; False if unknown."""
        try:
            await self._ask()
        except AMTPError:
            return False
        return True

    async def _ask(self) -> None:
        inbox_rule(await self.authenticator.caller(self.request), self.sender)


def _delivered(acceptance: Acceptance) -> bool:
    return any(recipient.status is Status.DELIVERED for recipient in acceptance.recipients)
