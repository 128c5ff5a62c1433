"""Consequences of a push: an agent's answer becomes a reply, and a withdrawn webhook switches its agent to the inbox.

They are written in the transaction that settles the delivery, so they happen if and only if that does.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from uuid import UUID

import msgspec

from gateway.deliver.courier import Parcel
from gateway.deliver.outcome import Deferred, Delivered, Outcome, Withdrawn, tidy
from gateway.protocol.errors import AMTPError, Code
from gateway.report.failures import push_ended
from gateway.report.postmaster import Postmaster
from gateway.report.replies import reply_to
from gateway.store.admitted import Admitted, Rider
from gateway.store.agents.withdrawal import ACTOR, Withdrawal
from gateway.store.audit import Audit
from gateway.store.queue.deliveries import Delivery, Letter
from gateway.store.queue.settle import Settlement
from gateway.store.runtime import Runtime

LONG_BYTES = 256 * 1024  # of a response that is read beside the event loop, which gets its turns meanwhile


@dataclass(frozen=True, slots=True)
class Consequence:
    """An outcome, and the rows and messages written together with it."""

    outcome: Outcome
    follow_ups: tuple[Admitted, ...] = ()
    riders: tuple[Rider, ...] = ()


class Aftermath:
    def __init__(self, runtime: Runtime, postmaster: Postmaster, audit: Audit) -> None:
        self._runtime = runtime
        self._postmaster = postmaster
        self._audit = audit

    async def of(self, parcel: Parcel, outcomes: Sequence[Outcome]) -> list[Consequence]:
        """Returns the consequence of each outcome, in the order of `parcel.deliveries`."""
        letters = (consignment.letter for consignment in parcel.consignments for _ in consignment.deliveries)
        return [
            await self._one(letter, delivery, outcome)
            for letter, delivery, outcome in zip(letters, parcel.deliveries, outcomes, strict=True)
        ]

    async def reports(
        self, settlements: Sequence[Settlement], letters: Mapping[UUID, Letter], now: datetime
    ) -> dict[int, tuple[Admitted, ...]]:
        """Returns a report for each message that ended badly, by the place of its first such settlement."""
        return await self._postmaster.reports(settlements, letters, now)

    async def _one(self, letter: Letter, delivery: Delivery, outcome: Outcome) -> Consequence:
        match outcome:
            case Delivered(response=response) if response is not None:
                return await self._answered(letter, delivery, outcome, response)
            case Withdrawn(agent, _, url):
                return await self._withdrawn(delivery.recipient, agent, url, outcome)
            case _:
                return Consequence(outcome)

    async def _answered(
        self, letter: Letter, delivery: Delivery, outcome: Outcome, response: msgspec.Raw
    ) -> Consequence:
        agent = delivery.recipient
        written = partial(
            reply_to,
            letter.body,
            response,
            responder=agent,
            proven=letter.proven,
            row=self._runtime.row_ids(),
            now=self._runtime.clock.now(),
        )
        try:
            reply = await asyncio.to_thread(written) if len(bytes(response)) > LONG_BYTES else written()
        except AMTPError as fault:
            text = f"The agent's webhook answered a response that makes no message: {fault.message}"
            return Consequence(Deferred(Code.RECIPIENT_UNAVAILABLE, tidy(text)))
        if reply is None:
            return Consequence(outcome)
        admitted = await self._postmaster.addressed(reply)
        if admitted is None:
            text = f"The reply of {agent} to {letter.message_id} has nowhere to go: its recipient is unknown."
            self._runtime.journal.noted("warning", text)
            return Consequence(outcome)
        return Consequence(outcome, follow_ups=(admitted,))

    async def _withdrawn(self, name: str, agent: int, url: str, outcome: Outcome) -> Consequence:
        self._runtime.journal.agent_changed(name, "its webhook is gone; it reads its inbox", ACTOR)
        domain = name.rpartition("@")[2]
        told = push_ended(name, domain=domain, row=self._runtime.row_ids(), now=self._runtime.clock.now())
        mail = await self._postmaster.addressed(told)
        rider = Withdrawal(agent, name, url, mail, self._runtime.row_ids(), self._audit)
        return Consequence(outcome, riders=(rider,))
