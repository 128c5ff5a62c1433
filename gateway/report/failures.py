"""Reports to senders about messages that failed or are late. Pure: facts in, a message out."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from gateway.protocol.errors import Code
from gateway.protocol.message import Message, parse_message
from gateway.protocol.timestamp import render_timestamp

FAILURE, DELAY = "delivery_failure", "delivery_delayed"
PUSH_ENDED = "push_ended"
POSTMASTER = "postmaster"

_SUBJECT = {FAILURE: "Could not be delivered", DELAY: "Not delivered yet, still trying"}


@dataclass(frozen=True, slots=True)
class FailureFacts:
    """The failure or delay of some recipients of one message."""

    kind: str  # FAILURE or DELAY
    message_id: str
    sender: str
    recipients: Sequence[str]
    code: Code
    reason: str
    attempts: int
    final_attempt: datetime | None
    next_attempt: datetime | None = None
    details: str | None = None  # of the error that another gateway answered, in JSON


def report_on(trouble: FailureFacts, *, domain: str, row: UUID, now: datetime) -> Message:
    """Returns the report, from the postmaster of `domain` to the sender of the message it is about."""
    facts: dict[str, Any] = {
        "message_type": trouble.kind,
        "original_message_id": trouble.message_id,
        "failed_recipients": list(trouble.recipients),
        "error_code": trouble.code.value,
        "error_message": trouble.reason,
        "retry_count": trouble.attempts,
        "final_attempt": _moment(trouble.final_attempt),
    }
    if trouble.details is not None:
        facts["error_details"] = msgspec.Raw(trouble.details.encode())
    if trouble.kind == DELAY:
        facts["next_attempt"] = _moment(trouble.next_attempt)
    body = {
        "version": "1.0",
        "sender": f"{POSTMASTER}@{domain}",
        "recipients": [trouble.sender],
        "subject": _SUBJECT[trouble.kind],
        "in_reply_to": trouble.message_id,
        "headers": {"auto-submitted": "auto-generated"},
        **facts,
        "payload": facts,
    }
    return parse_message(msgspec.json.encode(body), row=row, now=now, local=True)


def push_ended(agent: str, *, domain: str, row: UUID, now: datetime) -> Message:
    """Returns the mail to the operators of `domain` about an agent whose webhook is gone."""
    facts = {
        "message_type": PUSH_ENDED,
        "agent": agent,
        "reason": "Its webhook answered 410 Gone, so its mail goes to its inbox now.",
        "remedy": "Give it another push_target and delivery_mode push, or let it fetch.",
    }
    body = {
        "version": "1.0",
        "sender": f"{POSTMASTER}@{domain}",
        "recipients": [f"{POSTMASTER}@{domain}"],
        "subject": f"{agent} is not pushed to any more",
        "headers": {"auto-submitted": "auto-generated"},
        **facts,
        "payload": facts,
    }
    return parse_message(msgspec.json.encode(body), row=row, now=now, local=True)


def may_report(*, sender: str, proven: bool, automatic: bool) -> bool:
    """Returns whether a report may be sent: not to unproven senders, who may be forged, nor about automatic messages."""
    return proven and not automatic and not sender.startswith(f"{POSTMASTER}@")


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else render_timestamp(moment)
