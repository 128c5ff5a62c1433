"""Rendering of inbox entries: messages keep their bytes; what we add stands in members that senders can't set."""

from collections.abc import Sequence
from typing import Any

from gateway.http.answers import encode_json
from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.members import annotate
from gateway.protocol.timestamp import render_timestamp
from gateway.receive.inbox_query import AskedEntry
from gateway.store.inbox.acknowledge import Acknowledgement, Result
from gateway.store.inbox.inbox import Item, Lease, Page, Unread
from gateway.store.inbox.poison import Undigested

FAULTS = {
    Result.UNKNOWN: (Code.NOT_FOUND, "No message of this id lies in this inbox."),
    Result.TAKEN: (Code.CONFLICT, "That lease has ended, and another consumer holds the message now."),
}
LINES_MAX = 1000  # of an event: each costs seven bytes more, and time
_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")


def render_page(page: Page, owner: str, lease: Lease | None = None, unread: Unread | None = None) -> bytes:
    """Renders the answer to a listing."""
    items = b",".join(render_item(item, owner, lease) for item in page.items)
    about: dict[str, Any] = {
        "message_count": len(page.items),
        "count": len(page.items),
        "recipient": owner,
        "has_more": page.has_more,
        "cursor": str(page.items[-1].row) if page.items else None,
    }
    if unread is not None:
        about["unread"] = unread.count
        if unread.at_least:
            about["unread_more"] = True
    if lease is not None and page.items:
        about["lease"] = _lease(page.items[0], lease)
    return b'{"messages":[%b],%b' % (items, encode_json(about)[1:])


def render_item(item: Item, owner: str, lease: Lease | None = None) -> bytes:
    """Renders a message as received, with what the gateway knows about it."""
    about: dict[str, Any] = {
        "entry": str(item.row),
        "address": item.address or owner,
        "status": "unread" if item.unread else "read",
        "accepted_at": render_timestamp(item.accepted_at),
    }
    if item.delivered_at is not None:
        about["delivered_at"] = render_timestamp(item.delivered_at)
    if item.expires_at is not None:
        about["expires_at"] = render_timestamp(item.expires_at)
    if lease is not None:
        about["lease"] = _lease(item, lease)
    if item.lapses:
        about["lapses"] = item.lapses
    if item.hops:
        about["via"] = item.hops
    if item.automatic:
        about["automatic"] = True
    if not item.proven:
        about["untrusted"] = True
    verification = "pass" if item.proven else "none"
    return annotate(item.body, status=about["status"], gateway=about, sender_verification=verification)


def _lease(item: Item, lease: Lease) -> dict[str, str]:
    assert item.lease_until is not None
    return {"token": str(lease.token), "until": render_timestamp(item.lease_until)}


def render_event(item: Item, owner: str, lease: Lease | None = None) -> bytes:
    """Returns a message as an event of a stream.

    Line breaks inside it are white space between tokens of JSON. A run of them becomes one new line; if there are too
    many, each becomes a blank.
    """
    data = render_item(item, owner, lease)
    breaks = data.count(b"\n") + data.count(b"\r")
    if breaks > LINES_MAX:
        data = data.translate(_ONE_LINE)
    elif breaks:
        data = b"\ndata: ".join(filter(None, data.replace(b"\r", b"\n").split(b"\n")))
    return b"id: %b\nevent: message\ndata: %b\n\n" % (str(item.row).encode(), data)


def render_results(
    entries: Sequence[AskedEntry], outcomes: Sequence[Acknowledgement | AMTPError]
) -> dict[str, Any]:
    """Renders the answer to several acknowledgements, in their order."""
    rendered = [render_result(entry, outcome) for entry, outcome in zip(entries, outcomes, strict=True)]
    acknowledged = sum(result["status"] == "acknowledged" for result in rendered)
    return {"results": rendered, "acknowledged": acknowledged}


def render_result(entry: AskedEntry, outcome: Acknowledgement | AMTPError) -> dict[str, Any]:
    rendered: dict[str, Any] = {"message_id": entry.name.message_id}
    if isinstance(outcome, AMTPError) or outcome.result is not Result.ACKNOWLEDGED:
        error = outcome if isinstance(outcome, AMTPError) else AMTPError(*FAULTS[outcome.result])
        problem: dict[str, Any] = {"code": error.code, "message": error.message}
        if error.details is not None:
            problem["details"] = error.details
        return rendered | {"status": "failed", "error": problem}
    assert outcome.at is not None
    rendered |= {
        "status": "acknowledged",
        "timestamp": render_timestamp(outcome.at),
        "sender": outcome.sender,
    }
    if entry.said or outcome.sent:
        # A repeated acknowledgement sends nothing more, and is told what the first one sent.
        rendered |= {"again": outcome.again, "sent": outcome.sent}
    return rendered


def render_dead_letter(letter: Undigested, owner: str) -> bytes:
    about = {
        "dead_letter": letter.number,
        "entry": str(letter.row),
        "address": owner,
        "failure_reason": letter.reason,
        "attempts": letter.attempts,
        "first_attempt": letter.first_attempt and render_timestamp(letter.first_attempt),
        "last_attempt": letter.last_attempt and render_timestamp(letter.last_attempt),
        "dlq_timestamp": render_timestamp(letter.at),
    }
    return annotate(letter.body, gateway=about)
