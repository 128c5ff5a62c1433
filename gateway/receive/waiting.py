"""Answers that wait: for the reply to a message (`Prefer: wait=N`), and for what came of one that may not wait.

1. Both begin after the commit and take neither a place in admission nor the bytes of what was sent.
2. A reply is shown to who may open the sender's inbox, as it lies there; it stays there too.
3. Whatever goes wrong with a wait, the message is accepted, and the answer says so.
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
from gateway.protocol.status import Receipt, Status, brought_up_to_date, render_receipt
from gateway.receive.held_open import HeldOpen
from gateway.receive.inbox_items import render_item
from gateway.store.wakeups.bell import Ear
from gateway.store.wakeups.replies import Asked, Replies

WAIT_SECONDS_MAX = 60
_WAIT = re.compile(r'\s*wait\s*=\s*"?([0-9]{1,9})"?\s*(?:;.*)?', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Sent:
    """What is kept of a message while its sender waits: not its body."""

    sender: Address
    recipients: tuple[str, ...]  # names
    immediate: bool


def sent(message: Message, *, immediate: bool) -> Sent:
    return Sent(message.sender, tuple(recipient.name for recipient in message.recipients), immediate)


def wait_seconds(preferences: Sequence[str]) -> int:
    """How long `Prefer` asks to wait. A preference that is not understood is none, says its standard."""
    for preference in ",".join(preferences).split(","):
        if asked := _WAIT.fullmatch(preference):
            return min(int(asked[1]), WAIT_SECONDS_MAX)
    return 0


class Waiting:
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
        self, request: Request, caller: Caller, sent: Sent, receipt: Receipt, seconds: int
    ) -> Answer:
        """The answer to one message, when there is something to say or the time is over."""
        request.let_body_go()
        receipt = await self.outcome(request, sent, receipt)
        status = 200 if sent.immediate and _delivered(receipt) else 202
        waits = seconds and receipt.schedule is None
        owner = await self._owner(caller, sent.sender) if waits else None
        if owner is None or receipt.row is None:
            return answer_json(render_receipt(receipt), status)
        applied = (("Preference-Applied", f"wait={seconds}"),)
        asked = Asked(
            receipt.row, receipt.message_id, owner.id, owner.name, sent.recipients, receipt.status == "queued"
        )
        try:
            with self._waits.held(request.holder):
                permit = _Permit(self._held_open, self._authenticator, request, sent.sender)
                heard = await self._replies.wait(asked, seconds, request.ending, permit)
        except AMTPError:  # as many wait already as may
            return answer_json(render_receipt(receipt), status)
        receipt = brought_up_to_date(receipt, sent.recipients, heard.states)
        if heard.reply is None or not await permit.holds():
            return answer_json(render_receipt(receipt), status, applied)
        self._journal.fetched(owner.name, 1)
        body = b'%b,"reply":%b}' % (
            encode_json(render_receipt(receipt))[:-1],
            render_item(heard.reply, owner.name),
        )
        return Answer(200, body, JSON, applied)

    async def outcome(self, request: Request, sent: Sent, receipt: Receipt) -> Receipt:
        """The receipt, on the immediate path when it is known what came of the message."""
        if not sent.immediate:
            return receipt
        return await self._accept.outcome(receipt, sent.recipients, request.ending)

    async def _owner(self, caller: Caller, sender: Address) -> Resident | None:
        """The sender, if its inbox opens to the caller: a key that submits for it, or a peer's, waits for nothing."""
        try:
            inbox_rule(caller, sender)
            return (await self._residents.resolve([sender.name])).get(sender.name)
        except AMTPError:
            return None


@dataclass(frozen=True, slots=True)
class _Permit:
    """The right to wait for the replies to a sender: that of the key which was presented."""

    held_open: HeldOpen
    authenticator: Authenticator
    request: Request
    sender: Address

    def listening(self, ear: Ear, /) -> AbstractContextManager[None]:
        return self.held_open.listening((self.sender.name,), ear)

    async def ended(self) -> bool:
        """Whether the key is no longer good; while the database is away it may still be."""
        try:
            await self._ask()
        except AMTPError as refusal:
            return refusal.status < 500
        return False

    async def holds(self) -> bool:
        """Whether the key is known to be still good after so long a time."""
        try:
            await self._ask()
        except AMTPError:
            return False
        return True

    async def _ask(self) -> None:
        inbox_rule(await self.authenticator.caller(self.request), self.sender)


def _delivered(receipt: Receipt) -> bool:
    return any(recipient.status is Status.DELIVERED for recipient in receipt.recipients)
