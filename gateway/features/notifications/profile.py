"""Webhooks as bodies: one parse of what callers send, one render of what they are shown.

A secret is shown once, a URL to its owner and to operators.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from gateway.features.notifications.events import Event
from gateway.features.notifications.notices import NoticeAttempt
from gateway.features.notifications.subscriptions import Subscription
from gateway.protocol.address import parse_address, parse_domain
from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.fields import fault, line
from gateway.protocol.timestamp import parse_timestamp, render_timestamp
from gateway.protocol.webhook_signature import parse_secret
from gateway.receive.agent_profile import GRACE_SECONDS_DEFAULT, GRACE_SECONDS_MAX, read_body

ABOUT_MAX: Final = 100
DESCRIPTION_CHARACTERS_MAX: Final = 256
EVERYTHING: Final = "*"

TargetFault = Callable[[str], str | None]  # why nothing is posted to a URL, as far as it tells by itself


class WebhookChange(msgspec.Struct, forbid_unknown_fields=True):
    url: str | None = None
    events: list[str] | None = None
    about: list[str] | None = None
    description: str | None = None
    enabled: bool | None = None


class NewWebhook(msgspec.Struct, forbid_unknown_fields=True):
    url: str | None = None
    events: list[str] | None = None
    about: list[str] | None = None
    description: str | None = None
    owner: str | None = None
    secret: str | None = None  # the caller's own; one is minted where none is given


class NoticeReplay(msgspec.Struct, forbid_unknown_fields=True):
    since: str | None = None
    event: str | None = None


class SecretChange(msgspec.Struct, forbid_unknown_fields=True):
    grace_seconds: int = GRACE_SECONDS_DEFAULT
    secret: str | None = None


@dataclass(frozen=True, slots=True)
class Stated:
    """The members of a request body, checked; None where absent."""

    url: str | None
    events: Sequence[str] | None
    about: Sequence[str] | None
    description: str | None


def read_new(raw: bytes, target_fault: TargetFault) -> tuple[NewWebhook, Stated]:
    said = read_body(raw, NewWebhook)
    if said.url is None:
        raise fault("url", "is missing", "give the https URL that is to be told")
    if said.secret is not None:
        parse_secret(said.secret)
    return said, _stated(said, target_fault)


def read_change(raw: bytes, target_fault: TargetFault) -> tuple[WebhookChange, Stated]:
    said = read_body(raw, WebhookChange)
    return said, _stated(said, target_fault)


def read_replay(raw: bytes) -> tuple[datetime, str | None]:
    said = read_body(raw, NoticeReplay)
    if said.since is None:
        raise fault("since", "is missing", "give the time from which on events are to be sent again")
    if said.event is not None:
        _events([said.event])
    return parse_timestamp(said.since, "since"), said.event


def read_secret_change(raw: bytes) -> SecretChange:
    said = read_body(raw, SecretChange) if raw else SecretChange()
    if not 0 <= said.grace_seconds <= GRACE_SECONDS_MAX:
        remedy = f"write 0 to end the old secret now, up to {GRACE_SECONDS_MAX}"
        raise fault("grace_seconds", "is out of range", remedy)
    if said.secret is not None:
        parse_secret(said.secret)
    return said


def read_webhook_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise AMTPError(Code.NOT_FOUND, "There is no webhook of this id that is yours.") from None


def _stated(said: NewWebhook | WebhookChange, target_fault: TargetFault) -> Stated:
    reason = None if said.url is None else target_fault(said.url)
    if reason is not None:
        raise fault("url", "is no URL to post to", reason)
    return Stated(
        url=said.url,
        events=None if said.events is None else _events(said.events),
        about=None if said.about is None else _about(said.about),
        description=line(said.description, "description", DESCRIPTION_CHARACTERS_MAX)
        if said.description
        else None,
    )


def _events(names: Sequence[str]) -> list[str]:
    """Returns the events without duplicates; an empty list where all are meant."""
    if EVERYTHING in names:
        return []
    known = [event.value for event in Event if event is not Event.TEST]
    for name in names:
        if name not in known:
            raise fault("events", "names what is no event", f"choose of {', '.join(known)}, or {EVERYTHING}")
    return sorted(set(names))


def _about(names: Sequence[str]) -> list[str]:
    if len(names) > ABOUT_MAX:
        raise fault("about", "is too long", f"name at most {ABOUT_MAX} addresses and domains")
    return sorted({parse_address(n, "about").name if "@" in n else parse_domain(n, "about") for n in names})


def render_webhook(webhook: Subscription, **more: Any) -> dict[str, Any]:
    """Returns a webhook as its owner and operators see it; `more` holds what is shown this one time."""
    shown: Mapping[str, Any] = {
        "webhook_id": str(webhook.id),
        "url": webhook.url,
        "owner": webhook.owner,
        "events": list(webhook.events) or [EVERYTHING],
        "about": list(webhook.about) or None,
        "description": webhook.description,
        "status": webhook.status,
        "created_at": _moment(webhook.created_at),
        "proven_at": _moment(webhook.proven_at),
        "failures": webhook.failures,
        "failing_since": _moment(webhook.failing_since),
        "disabled_at": _moment(webhook.disabled_at),
        "last_success": _moment(webhook.last_success),
        "last_failure": _moment(webhook.last_failure),
        "last_error": webhook.last_error,
        "previous_secret_ends_at": _moment(webhook.previous_until),
        **more,
    }
    return {name: value for name, value in shown.items() if value is not None}


def render_attempt(attempt: NoticeAttempt) -> dict[str, Any]:
    return {
        "event_id": str(attempt.notice),
        "event": attempt.event,
        "attempt": attempt.attempt,
        "timestamp": render_timestamp(attempt.at),
        "result": "failed" if attempt.error else "delivered",
        "status": attempt.status,
        "error": attempt.error,
        "milliseconds": attempt.milliseconds,
    }


def _moment(at: datetime | None) -> str | None:
    return None if at is None else render_timestamp(at)
