"""The courier to agents that are pushed to: one signed POST for each delivery, to the agent's own https URL.

1. The signature is that of Standard Webhooks, one for each live secret; the id is the delivery's, on every attempt.
2. Nothing that is stored or logged here tells where the agent's URL leads.
3. Redirects are answers, and answers are bounded, as with every request that leaves the house.
"""

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from gateway.config.sections import OutboundSettings as Limits
from gateway.deliver.answer import HttpReply
from gateway.deliver.courier import COURIER_SECONDS, Parcel
from gateway.deliver.outcome import Deferred, Delivered, Outcome, Refused, Withdrawn
from gateway.deliver.push_message import render_push, webhook_id_of
from gateway.deliver.webhook_answer import VIA, Gone, Taken, meaning_of
from gateway.journal.journal import Journal
from gateway.net.outbound import Kind, Outbound, OutboundError
from gateway.protocol.errors import Code
from gateway.protocol.webhook_signature import sign
from gateway.route.ways import Pushed
from gateway.store.agents.agents import Resident
from gateway.store.agents.push_secrets import live_secrets
from gateway.store.clock import Clock
from gateway.store.queue.deliveries import Delivery, Letter
from gateway.store.sealed import Sealer, SealError

PROBE_SECONDS: Final = 10.0
SECRETS_REMEMBERED: Final = 4096  # opening a seal costs more than the signature
HEADERS: Final = {"Content-Type": "application/json", "X-AMTP-Version": "1.0"}

# Texts about a request that got no answer; the HTTP client's own name the URL.
TROUBLE: Final = {
    Kind.REFUSED_ADDRESS: "leads to an address that agents are not pushed to",
    Kind.RESOLVE: "has no address in the DNS",
    Kind.CONNECT: "does not take connections",
    Kind.TLS: "shows no certificate we accept, or speaks no TLS 1.3",
    Kind.TIMEOUT: "did not answer in time",
    Kind.LOST: "ended the connection before its answer",
    Kind.PROTOCOL: "gave an answer that is not HTTP as we know it",
    Kind.TOO_LARGE: "gave an answer that is too large",
}


class WebhookCourier:
    """The courier to agents with a webhook."""

    def __init__(
        self,
        outbound: Outbound,
        sealer: Sealer,
        clock: Clock,
        journal: Journal,
        limits: Limits,
        *,
        seconds: float = COURIER_SECONDS,
    ) -> None:
        self._outbound = outbound
        self._open = lru_cache(SECRETS_REMEMBERED)(sealer.open)
        self._clock = clock
        self._journal = journal
        self._limits = limits
        self._seconds = seconds

    async def deliver(self, parcel: Parcel, way: Pushed) -> Sequence[Outcome]:
        """Returns an outcome for each of `parcel.deliveries`, in that order."""
        resident = way.resident
        pairs = [(each.letter, delivery) for each in parcel.consignments for delivery in each.deliveries]
        if len(pairs) == 1:
            return [await self._push(*pairs[0], resident)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._push(*pair, resident)) for pair in pairs]
        return [task.result() for task in tasks]

    async def probe(self, way: Pushed) -> str | None:
        """Returns why the agent's webhook can't be reached, judged by connecting; None if it can."""
        url = way.resident.push_url
        if url is None or url.startswith("http:"):
            return None
        try:
            greeting = await self._outbound.greet(url, deadline_seconds=PROBE_SECONDS)
        except OutboundError as error:
            return _trouble(error.kind)
        return None if greeting.fault is None else _trouble(Kind.TLS)

    async def _push(self, letter: Letter, delivery: Delivery, resident: Resident) -> Outcome:
        answer = await self._ask(letter, delivery, resident)
        match answer:
            case Taken(response):
                return Delivered(VIA, response)
            case Gone():
                assert resident.push_url is not None
                address = None if delivery.address == delivery.recipient else delivery.address
                return Withdrawn(resident.id, address, resident.push_url)
            case _:
                return answer

    async def _ask(
        self, letter: Letter, delivery: Delivery, resident: Resident
    ) -> Taken | Gone | Deferred | Refused:
        now = self._clock.now()
        try:
            secrets = live_secrets(self._open(resident.push_secrets or b""), now)
        except SealError as error:
            self._journal.noted("error", f"Nothing can be signed for {resident.name}: {error}")
            return Deferred(Code.TEMPORARY_FAILURE, "This gateway can't sign for the agent at the moment.")
        body = render_push(
            letter.body,
            recipient=delivery.address,
            proven=letter.proven,
            automatic=letter.automatic,
            hops=letter.hops,
        )
        signed = sign(webhook_id_of(letter.row, delivery.recipient), now, body, secrets)
        try:
            response = await self._outbound.post(
                resident.push_url or "",
                body,
                {**HEADERS, **signed},
                deadline_seconds=self._seconds,
                answer_bytes_max=self._limits.answer_bytes,
                plain=self._limits.plain_webhooks,
            )
        except OutboundError as error:
            return Deferred(
                Code.RECIPIENT_UNAVAILABLE, _trouble(error.kind), blames=True, unreachable=not error.sent
            )
        return meaning_of(HttpReply(response.status, response.headers, response.body), delivery.attempts)


def _trouble(kind: Kind) -> str:
    return f"The agent's webhook {TROUBLE[kind]}."
