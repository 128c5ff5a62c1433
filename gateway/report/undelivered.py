"""The check for failure reports of other gateways: deliveries that they took and could not complete end as failed.

Only the postmaster of a proven domain is believed, about recipients in that very domain; any other report
is a message like any other.
"""

from collections.abc import Awaitable
from typing import Any

import msgspec

from gateway.admit.caller import Caller
from gateway.admit.checks import Judgement, Pass, Stage
from gateway.deliver.answer import details_of
from gateway.deliver.outcome import tidy
from gateway.protocol.address import parse_address
from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.message import RECIPIENTS_MAX, Message
from gateway.report.failures import FAILURE, POSTMASTER
from gateway.report.interests import Interests
from gateway.store.admitted import Rider
from gateway.store.queue.deliveries import Letter
from gateway.store.queue.settle import Settlement
from gateway.store.queue.undelivered import Given, Undelivered, given
from gateway.store.runtime import Runtime


class _Report(msgspec.Struct):
    """The members of a report that the check needs; the rest is for its reader."""

    message_type: str = ""
    failed_recipients: list[str] = []
    error_code: str = ""
    error_message: str = ""
    error_details: Any = None


class UndeliveredCheck:
    stage = Stage.RECORDS

    def __init__(self, runtime: Runtime, interests: Interests) -> None:
        self._runtime = runtime
        self._interests = interests

    def judge(self, message: Message, caller: Caller, /) -> Awaitable[Judgement] | None:
        """Ends the deliveries that the report is about as failed, in the transaction that accepts it."""
        domain, sender = caller.proven_domain, message.sender
        if domain is None or (sender.local, sender.domain) != (POSTMASTER, domain):
            return None
        return None if message.in_reply_to is None else self._judge(message, message.in_reply_to, domain)

    async def _judge(self, message: Message, message_id: str, domain: str) -> Judgement:
        try:
            report = msgspec.json.decode(message.body, type=_Report)
        except msgspec.ValidationError:
            return Pass()
        failed = _names(report.failed_recipients, domain)
        if report.message_type != FAILURE or not failed:
            return Pass()
        senders = [recipient.name for recipient in message.recipients]
        found = await given(self._runtime.database, message_id, senders, failed)
        return Pass(tuple(rider for one in found for rider in self._riders(one, report, domain)))

    def _riders(self, one: Given, report: _Report, domain: str) -> list[Rider]:
        known = report.error_code in Code.__members__
        code = Code(report.error_code) if known else Code.RECIPIENT_UNAVAILABLE
        said = " ".join(filter(None, ("" if known else report.error_code, report.error_message)))
        error = tidy(f"{domain} took it, and reported later: {said or 'it could not be delivered.'}")
        details = details_of({"error": {"details": report.error_details}})
        tally = self._runtime.row_ids()
        riders: list[Rider] = [Undelivered(one.row, one.recipients, code.value, error, details, tally)]
        letter = Letter(one.row, one.message_id, one.sender, True, False, (), b"")
        for recipient in one.recipients:
            end = Settlement(
                message=one.row,
                recipient=recipient,
                address=recipient,
                token=0,
                attempts=1,
                first_attempt=None,
                status="failed",
                code=code.value,
                error=error,
                dead_letter=True,
            )
            riders += self._interests.settled(end, letter)
        return riders


def _names(addresses: list[str], domain: str) -> set[str]:
    """Returns the names of those addresses that are in the domain."""
    names = set()
    for written in addresses[:RECIPIENTS_MAX]:
        try:
            address = parse_address(written, "failed_recipients")
        except AMTPError:
            continue
        if address.domain == domain:
            names.add(address.name)
    return names
