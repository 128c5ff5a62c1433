"""The meaning of a peer's answer, for each recipient it was asked about. Pure.

| answer | recipient without a word of its own |
|---|---|
| 2xx | delivered; where the body can't be read or contradicts it, or tells of others' success alone, again later |
| 400, 409, 413, 422 with an envelope | refused; where its own code is a temporary one, again later |
| 429, 503 with an envelope | again later: the peer is well, it only has no room |
| 3xx, other 4xx and 5xx, no envelope | again later, and the destination is to blame |

A recipient's own entry in the answer's `recipients` comes before all of that: a code of statuses 400–413
there is final, any other is not. A conflict about a repeat says that an earlier attempt may have arrived, so
nobody is told that it failed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from itertools import islice
from math import isfinite
from typing import Any

import msgspec

from gateway.deliver.outcome import Deferred, Delivered, Outcome, Refused, tidy
from gateway.protocol.address import parse_address
from gateway.protocol.errors import STATUS_OF, AMTPError, Code

# Statuses that refuse a whole message for good, each with our code where the peer's is unknown to us.
FINAL_STATUSES: Mapping[int, Code] = {
    400: Code.INVALID_MESSAGE_FORMAT,
    409: Code.CONFLICT,
    413: Code.MESSAGE_TOO_LARGE,
    422: Code.INVALID_MESSAGE_FORMAT,
}
FINAL_CODES = frozenset(code for code, status in STATUS_OF.items() if 400 <= status <= 413)
CONFLICTS = frozenset(code for code, status in STATUS_OF.items() if status == 409)
ROOMLESS_STATUSES = frozenset({429, 503})

# The statuses of a recipient, ours and those other implementations use.
TAKEN = frozenset({"queued", "held", "delivered", "accepted", "pending", "delivering", "retrying"})
NOT_TAKEN = frozenset({"failed", "expired", "cancelled", "rejected"})
RETRY_AFTER_DIGITS_MAX = 9

# Limits of what is kept of an error's `details`: enough to tell which recipient of a thousand, and which check.
DETAILS_BYTES_MAX = 2000
DETAILS_MEMBERS_MAX = 20  # of each object and list
DETAILS_DEPTH_MAX = 5


@dataclass(frozen=True, slots=True)
class AskedRecipient:
    """A recipient we asked the peer to take: its name, and which attempt this was."""

    recipient: str
    attempts: int


@dataclass(frozen=True, slots=True)
class HttpReply:
    """An answer as it came; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class _Answer:
    """The parsed answer to one message."""

    host: str
    status: int
    document: Any  # None: the body is empty; UNREADABLE: it is no JSON
    code: Code | None  # of its envelope, where we know it
    said: str  # code and text of its envelope; "" without one
    retry_after_seconds: float | None

    @property
    def entries(self) -> Mapping[str, Mapping[str, Any]]:
        """Returns the entries of single recipients, by name."""
        listed = self.document.get("recipients") if isinstance(self.document, dict) else None
        entries: dict[str, Mapping[str, Any]] = {}
        for entry in listed if isinstance(listed, list) else ():
            if isinstance(entry, dict) and isinstance(entry.get("address"), str):
                entries.setdefault(_name(entry["address"]), entry)
        return entries


UNREADABLE = object()
BRACKETS_MAX = (
    10_000  # twice what a thousand recipients with details need; a megabyte of them takes 50 ms to read
)


def outcomes_of(reply: HttpReply, asked: Sequence[AskedRecipient], host: str) -> list[Outcome]:
    """Returns the outcome for each recipient of the one message asked about."""
    answer = _read(reply.status, document_of(reply.body), host, retry_after_of(reply.headers))
    return _outcomes(answer, asked)


def outcomes_of_lines(
    reply: HttpReply, asked: Sequence[tuple[str, Sequence[AskedRecipient]]], host: str
) -> list[list[Outcome]] | None:
    """Returns the outcomes of a batch, message by message, in the order asked; each message is recognised by its id.

    None where the batch was refused as a batch, which says nothing about any message of it.
    """
    lines = [line for line in reply.body.split(b"\n") if line.strip()]
    if not 200 <= reply.status < 300:
        if reply.status in FINAL_STATUSES or reply.status == 415:
            return None
        whole = _read(reply.status, document_of(reply.body), host, retry_after_of(reply.headers))
        return [_outcomes(whole, each) for _, each in asked]
    if len(lines) != len(asked):
        text = f"{host} answered {len(lines)} of {len(asked)} messages; the outcome is unknown."
        return [[_later(text, blames=True)] * len(each) for _, each in asked]
    return [_line(line, id_, each, host) for line, (id_, each) in zip(lines, asked, strict=True)]


def delivered_in(reply: HttpReply, message_id: str, recipients: Sequence[str]) -> set[str]:
    """Returns the recipients that a peer's status of this message reports as delivered.

    Any other status does not count: a message that a peer left queued when it failed may stay there for ever.
    """
    document = document_of(reply.body)
    if reply.status != 200 or not isinstance(document, dict) or document.get("message_id") != message_id:
        return set()
    entries = _Answer("", reply.status, document, None, "", None).entries
    return {name for name in recipients if word_of(entries.get(name, {})) == "delivered"}


def _line(line: bytes, message_id: str, asked: Sequence[AskedRecipient], host: str) -> list[Outcome]:
    """Returns the outcomes in one line, a receipt or an error; a receipt of another message is no answer to this one."""
    document = document_of(line)
    if not isinstance(document, dict):
        return [_later(f"{host} answered a line that is no receipt.", blames=True)] * len(asked)
    code, said = envelope_of(document)
    if not said and document.get("message_id") != message_id:
        return [_later(f"{host} answered for another message.", blames=True)] * len(asked)
    status = (STATUS_OF.get(code, 503) if code else 503) if said else 200
    return _outcomes(_Answer(host, status, document, code, said, None), asked)


def _read(status: int, document: Any, host: str, retry_after_seconds: float | None) -> _Answer:
    code, said = envelope_of(document)
    return _Answer(host, status, document, code, said, retry_after_seconds)


def _outcomes(answer: _Answer, asked: Sequence[AskedRecipient]) -> list[Outcome]:
    entries = answer.entries
    overall = _overall(answer)
    if isinstance(overall, Delivered) and _about_others(entries, asked):
        overall = _later(f"{answer.host} answered about other recipients alone; the outcome is unknown.")
    found = []
    for one in asked:
        entry = entries.get(one.recipient)
        outcome = _final_once(_outcome(answer, entry, overall), one)
        found.append(
            outcome if isinstance(outcome, Delivered) else _detailed(outcome, entry, answer.document)
        )
    return found


def _about_others(entries: Mapping[str, Mapping[str, Any]], asked: Sequence[AskedRecipient]) -> bool:
    """Returns whether an answer reports only other recipients' success: it answers an earlier copy with the same key."""
    return (
        bool(entries)
        and entries.keys().isdisjoint(one.recipient for one in asked)
        and all(word_of(entry) in TAKEN for entry in entries.values())
    )


def _detailed(outcome: Outcome, entry: Mapping[str, Any] | None, document: object) -> Outcome:
    """Returns the outcome with the error details of this recipient or of the whole message."""
    details = details_of(entry) or details_of(document)
    if details is None or not isinstance(outcome, Refused | Deferred):
        return outcome
    return replace(outcome, details=details)


def _outcome(answer: _Answer, entry: Mapping[str, Any] | None, overall: Outcome) -> Outcome:
    """Returns one recipient's outcome: by the code in its entry, by the status there, else that of all."""
    if entry is None:
        return overall
    status, (code, said) = word_of(entry), envelope_of(entry)
    if status in TAKEN:
        return Delivered(f"amtp:{answer.host}")
    if said:
        reason = tidy(f"{answer.host} answered {said}")
        if code in FINAL_CODES:
            return Refused(code, reason)
        return Deferred(code or Code.RECIPIENT_UNAVAILABLE, reason, answer.retry_after_seconds)
    if not status or (status in NOT_TAKEN and not isinstance(overall, Delivered)):
        return overall
    return _later(f"{answer.host} answered {status} without a reason.", answer.retry_after_seconds)


def _overall(answer: _Answer) -> Outcome:
    """Returns the outcome of recipients without an entry of their own."""
    host, status, code = answer.host, answer.status, answer.code
    if 200 <= status < 300:
        return _success(answer)
    if not answer.said:
        text = f"{host} answered {status} without an AMTP error."
        if 300 <= status < 400:
            text = f"{host} answered {status}, a redirect; its record must name the gateway itself."
        return _later(text, answer.retry_after_seconds, blames=True)
    reason = f"{host} answered {status} {answer.said}"
    final = status in FINAL_STATUSES and (code is None or code in FINAL_CODES)
    if final:
        return Refused(final_code(status, code), tidy(reason))
    well = status in ROOMLESS_STATUSES or status in FINAL_STATUSES
    return _later(reason, answer.retry_after_seconds, code=code, blames=not well)


def final_code(status: int, code: Code | None) -> Code:
    """Returns the code of a final refusal; a 409 is a conflict, whatever code it carries."""
    if code is None or (status == 409 and code not in CONFLICTS):
        return FINAL_STATUSES[status]
    return code


def _success(answer: _Answer) -> Outcome:
    document = answer.document
    if document is UNREADABLE:
        text = f"{answer.host} answered {answer.status} with a body that is not JSON; the outcome is unknown."
        return _later(text, blames=True)
    if answer.said or word_of(document) in NOT_TAKEN:
        text = f"{answer.host} answered {answer.status} but did not take the message. {answer.said}"
        return _later(text, answer.retry_after_seconds, code=answer.code)
    return Delivered(f"amtp:{answer.host}")


def _final_once(outcome: Outcome, asked: AskedRecipient) -> Outcome:
    """Returns unknown for a conflict about a repeat: the first attempt's result was never received."""
    if isinstance(outcome, Refused) and outcome.code in CONFLICTS and asked.attempts > 1:
        return Refused(outcome.code, outcome.reason, unknown=True)
    return outcome


def _later(
    reason: str,
    retry_after_seconds: float | None = None,
    *,
    code: Code | None = None,
    blames: bool = False,
) -> Deferred:
    return Deferred(code or Code.RECIPIENT_UNAVAILABLE, tidy(reason), retry_after_seconds, blames)


def document_of(body: bytes) -> Any:
    if not body.strip():
        return None
    if body.count(b"[") + body.count(b"{") > BRACKETS_MAX:
        return UNREADABLE
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return UNREADABLE


def word_of(document: Any) -> str:
    """Returns the status that an answer or an entry gives."""
    status = document.get("status") if isinstance(document, dict) else None
    return status.lower() if isinstance(status, str) else ""


def envelope_of(document: Any) -> tuple[Code | None, str]:
    """Returns code and text of an error: `{"error": {"code", "message"}}`, or `error_code` and `error_message`."""
    if not isinstance(document, dict):
        return None, ""
    error = document.get("error")
    if not isinstance(error, dict):
        error = {"code": document.get("error_code"), "message": document.get("error_message")}
    written = error.get("code")
    if not isinstance(written, str) or not written:
        return None, ""
    message = error.get("message")
    said = f"{written}: {message}" if isinstance(message, str) and message else written
    return (Code(written) if written in Code.__members__ else None), tidy(said)


def details_of(document: object) -> str | None:
    """Returns an error's `details` as JSON in ASCII, cut to what is kept; None where there are none."""
    error = document.get("error") if isinstance(document, dict) else None
    details = error.get("details") if isinstance(error, dict) else None
    if details is None or details == "" or details == {}:
        return None
    kept = _bounded(details, DETAILS_DEPTH_MAX)
    while len(written := json.dumps(kept, separators=(",", ":"))) > DETAILS_BYTES_MAX:
        if not isinstance(kept, dict | list) or not kept:
            return None
        kept.popitem() if isinstance(kept, dict) else kept.pop()
    return written


def _bounded(value: Any, depth: int) -> Any:
    """Returns a JSON value cut to few members, short printable texts and little depth."""
    match value:
        case str():
            return tidy(value)
        case dict() | list() if not depth:
            return None
        case dict():
            some = islice(value.items(), DETAILS_MEMBERS_MAX)
            return {tidy(name): _bounded(member, depth - 1) for name, member in some}
        case list():
            return [_bounded(member, depth - 1) for member in value[:DETAILS_MEMBERS_MAX]]
        case float() if not isfinite(value):
            return None
        case _:
            return value


def _name(address: str) -> str:
    try:
        return parse_address(address, "address").name
    except AMTPError:
        return address.casefold()


def retry_after_of(headers: Mapping[str, str]) -> float | None:
    """Returns Retry-After in seconds. A date is compared with the answer's own Date, so that our clock does not matter."""
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit() and len(text) <= RETRY_AFTER_DIGITS_MAX:
        return float(text)
    try:
        then, now = parsedate_to_datetime(text), parsedate_to_datetime(headers.get("date", ""))
        return max((then - now).total_seconds(), 0.0)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
