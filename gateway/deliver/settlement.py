"""The results of an attempt: for the store a settlement of each delivery, for the lane the state of its destination."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from msgspec.structs import replace

from gateway.deliver.outcome import Again, Deferred, Done, Ended, Outcome, Refused, Shelved, Verdict
from gateway.protocol.errors import Code
from gateway.protocol.status import Status
from gateway.route.destination import Destination
from gateway.route.ways import NotNow, NoWay, Way
from gateway.store.queue.deliveries import Delivery
from gateway.store.queue.settle import Settlement

PRESSING = frozenset(
    {Code.RATE_LIMIT_EXCEEDED, Code.QUEUE_FULL, Code.TEMPORARY_FAILURE}
)  # "not so much at once"


@dataclass(frozen=True, slots=True)
class Carried:
    """The result of a parcel for its lane: the state of the destination."""

    answered: bool = False  # it took something, or refused it in order
    pressed: bool = False  # it has no room for so much at once
    blame: str | None = None  # it failed as a whole
    unreachable: bool = False  # in that nothing could be sent
    batch: bool = False  # it takes several messages at once


def carried_of(way: Way, outcomes: Sequence[Outcome]) -> Carried:
    """Returns what the outcomes say of the destination; one that was not asked does not count as healthy."""
    batch = isinstance(way, Destination) and "batch" in way.features
    blamed = [o for o in outcomes if isinstance(o, Deferred) and o.blames]
    if blamed:
        unreachable = all(o.unreachable for o in blamed)
        return Carried(blame=blamed[0].reason, unreachable=unreachable, batch=batch)
    if any(isinstance(o, Deferred) and o.code in PRESSING for o in outcomes):
        return Carried(pressed=True, batch=batch)
    asked = any(not isinstance(o, Refused) or o.code is not Code.MESSAGE_TOO_LARGE for o in outcomes)
    return Carried(answered=asked and not isinstance(way, NoWay | NotNow), batch=batch)


def too_late(delivery: Delivery) -> Outcome:
    """Returns the outcome of a delivery that expired before this attempt; the last attempt's error is the reason."""
    code = Code(delivery.last_code) if delivery.last_code else Code.RECIPIENT_UNAVAILABLE
    return Deferred(code, delivery.last_error or "It waited all the time and was never tried.")


def settlement_of(delivery: Delivery, verdict: Verdict, milliseconds: int) -> Settlement:
    """Returns the verdict as the store writes it."""
    settlement = Settlement(
        message=delivery.message,
        recipient=delivery.recipient,
        address=delivery.address,
        token=delivery.token,
        attempts=delivery.attempts,
        first_attempt=delivery.first_attempt,
        milliseconds=milliseconds,
    )
    match verdict:
        case Done(via):
            return replace(settlement, status=Status.DELIVERED.value, via=via)
        case Shelved(agent, address):
            expires = delivery.expires_at if delivery.expiry == "ttl" else None
            return replace(settlement, agent=agent, entry_address=address, expires_at=expires)
        case Again(due, code, reason, inside):
            return replace(settlement, due=due, code=code.value, error=reason, inside=inside)
        case Ended(status, code, reason, dead_letter, report, details, inside):
            return replace(
                settlement,
                status=status.value,
                code=code.value,
                error=reason,
                dead_letter=dead_letter,
                report=report,
                details=details,
                inside=inside,
            )
        case _:
            assert_never(verdict)
