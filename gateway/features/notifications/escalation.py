"""The escalation for a webhook that keeps failing: its owner is warned, and in the end it is disabled.

Each step is taken once, by whichever process is first: the mark, the letter to the owner and the event for
subscribers are one transaction. The letter makes no events, and no webhook is told of itself.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from gateway.features.notifications.audience import Audience
from gateway.features.notifications.events import Event, Happening
from gateway.features.notifications.health import Failing, disable, failing, warn
from gateway.protocol.message import Message, parse_message
from gateway.protocol.timestamp import render_timestamp
from gateway.protocol.url import Url, parse_url
from gateway.report.failures import POSTMASTER
from gateway.report.postmaster import Postmaster
from gateway.store.admitted import write_riders
from gateway.store.intake.insertion import insert
from gateway.store.runtime import Runtime

WARN_SECONDS: Final = 4 * 3600.0  # of failures alone
DISABLE_SECONDS: Final = 2 * 86_400.0

_SUBJECT = {
    Event.WEBHOOK_FAILING: "Your webhook takes nothing",
    Event.WEBHOOK_DISABLED: "Your webhook was switched off",
}
_REMEDY = {
    Event.WEBHOOK_FAILING: "Mend its target; what waits is sent then. Otherwise it will be switched off.",
    Event.WEBHOOK_DISABLED: "Mend its target, switch it on again, and have what it missed replayed.",
}

Step = Callable[[Any, UUID], Awaitable[Failing | None]]


class Ladder:
    def __init__(self, *, runtime: Runtime, audience: Audience, postmaster: Postmaster) -> None:
        self._runtime = runtime
        self._audience = audience
        self._postmaster = postmaster

    async def look(self) -> None:
        """Takes the steps that are due."""
        for subscription in await failing(self._runtime.database, WARN_SECONDS, unwarned=True):
            await self._step(subscription, Event.WEBHOOK_FAILING, warn)
        for subscription in await failing(self._runtime.database, DISABLE_SECONDS, unwarned=False):
            await self.disable(subscription)

    async def disable(self, subscription: UUID) -> None:
        await self._step(subscription, Event.WEBHOOK_DISABLED, disable)

    async def _step(self, subscription: UUID, event: Event, step: Step) -> None:
        now = self._runtime.clock.now()
        async with self._runtime.database.transaction() as connection:
            found = await step(connection, subscription)
            if found is None:
                return
            letter = letter_on(
                event, found, self._postmaster.home_of(found.owner), self._runtime.row_ids(), now
            )
            told = await self._postmaster.addressed(letter, heard=False)
            if told is not None:
                await insert(connection, self._runtime.row_ids(), [told])
            await write_riders(connection, self._audience.notices([happening_of(event, found, now)]))
        if told is not None:
            self._runtime.ring([entry.agent for entry in told.entries])
        self._runtime.journal.webhook_failed(str(found.id), event.value, found.last_error or "")


def happening_of(event: Event, failing: Failing, now: datetime) -> Happening:
    concerned = () if failing.owner is None else (failing.owner,)
    since = "" if failing.since is None else render_timestamp(failing.since)
    return Happening(event, now, str(failing.id), concerned, since, _facts(event, failing))


def letter_on(event: Event, failing: Failing, domain: str, row: UUID, now: datetime) -> Message:
    """Returns the letter to the owner; for the operators' own webhooks it goes to the postmaster."""
    postmaster = f"{POSTMASTER}@{domain}"
    facts = {**_facts(event, failing), "remedy": _REMEDY[event]}
    body = {
        "version": "1.0",
        "sender": postmaster,
        "recipients": [failing.owner or postmaster],
        "subject": _SUBJECT[event],
        "headers": {"auto-submitted": "auto-generated"},
        "message_type": event.value.replace(".", "_"),
        "payload": facts,
    }
    return parse_message(msgspec.json.encode(body), row=row, now=now, local=True)


def _facts(event: Event, failing: Failing) -> dict[str, Any]:
    url = parse_url(failing.url)
    facts = {
        "webhook_id": str(failing.id),
        "host": url.authority if isinstance(url, Url) else None,
        "owner": failing.owner,
        "failing_since": None if failing.since is None else render_timestamp(failing.since),
        "last_error": failing.last_error,
        "status": "disabled" if event is Event.WEBHOOK_DISABLED else "active",
    }
    return {name: value for name, value in facts.items() if value is not None}
