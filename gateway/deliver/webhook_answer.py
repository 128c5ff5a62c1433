"""The meaning of the answer of an agent's webhook. Pure.

| answer | outcome |
|---|---|
| 2xx | delivered; a `response` in a JSON body is the agent's reply |
| 2xx saying `failed` or `rejected`, or with JSON that can't be read | again later |
| 410 | the agent has gone back to its inbox |
| 400, 409, 413, 422 with an AMTP error | refused; a conflict about a repeat leaves the outcome unknown |
| 429, and 503 with Retry-After | again later: the agent is well, it only has no room |
| everything else | again later, and the webhook is to blame |

What is said of the agent never names its URL: a sender reads it, and so does whoever reads the log.
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from gateway.deliver.answer import (
    CONFLICTS,
    FINAL_CODES,
    FINAL_STATUSES,
    NOT_TAKEN,
    UNREADABLE,
    HttpReply,
    document_of,
    envelope_of,
    final_code,
    retry_after_of,
    word_of,
)
from gateway.deliver.outcome import Deferred, Refused, tidy
from gateway.protocol.errors import Code
from gateway.protocol.members import members_of

VIA: Final = "webhook"


@dataclass(frozen=True, slots=True)
class Taken:
    """The agent's acceptance; `response` is its reply."""

    response: msgspec.Raw | None = None


@dataclass(frozen=True, slots=True)
class Gone:
    """The answer of a webhook that was withdrawn for good."""


def meaning_of(reply: HttpReply, attempts: int) -> Taken | Gone | Deferred | Refused:
    """Returns the meaning of an answer; `attempts` include this one."""
    if reply.status == 410:
        return Gone()
    document = document_of(reply.body)
    code, said = envelope_of(document)
    retry_after = retry_after_of(reply.headers)
    if 200 <= reply.status < 300:
        return _success(reply, document, said, retry_after)
    reason = f"The agent's webhook answered {reply.status}{f' {said}' if said else ''}."
    if said and reply.status in FINAL_STATUSES and (code is None or code in FINAL_CODES):
        final = final_code(reply.status, code)
        return Refused(final, tidy(reason), unknown=final in CONFLICTS and attempts > 1)
    if reply.status == 429 or (reply.status == 503 and retry_after is not None):
        pressing = Code.RATE_LIMIT_EXCEEDED if reply.status == 429 else Code.TEMPORARY_FAILURE
        return Deferred(pressing, tidy(reason), retry_after)
    return Deferred(Code.RECIPIENT_UNAVAILABLE, tidy(reason), retry_after, blames=True)


def _success(reply: HttpReply, document: object, said: str, retry_after: float | None) -> Taken | Deferred:
    if document is UNREADABLE:
        if "json" not in reply.headers.get("content-type", "").lower():
            return Taken()
        text = "The agent's webhook answered with JSON that can't be read; its response may be in it."
        return Deferred(Code.RECIPIENT_UNAVAILABLE, text, retry_after)
    word = word_of(document)
    if said or word in NOT_TAKEN:
        text = f"The agent's webhook answered {reply.status} but did not take the message. {said or word}"
        return Deferred(Code.RECIPIENT_UNAVAILABLE, tidy(text), retry_after)
    if not isinstance(document, dict) or document.get("response") is None:
        return Taken()
    return Taken(members_of(reply.body)["response"])
