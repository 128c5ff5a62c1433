"""The body of a message posted to an agent's webhook. Pure.

The body always has the same members, `null` where the message has none, and is the same on every attempt.
The sender's values keep their bytes; this gateway's own statements are in `sender_verification` and `gateway` alone.
"""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final
from uuid import UUID

import msgspec

from gateway.protocol.address import parse_address
from gateway.protocol.errors import AMTPError
from gateway.protocol.members import encode, members_of, render

ABSENT: Final = b"null"
# The members that pass as they came, in the order of the body, and what stands for an absent one.
PASSED: Final[Mapping[str, bytes]] = {
    "subject": ABSENT,
    "schema": ABSENT,
    "timestamp": ABSENT,
    "in_reply_to": ABSENT,
    "headers": b"{}",
    "payload": ABSENT,
    "attachments": b"[]",
}


def render_push(
    body: bytes,
    *,
    recipient: str,
    proven: bool,
    automatic: bool = False,
    hops: tuple[str, ...] = (),
) -> bytes:
    """Returns the body posted for the stored message `body` to the agent written as `recipient`."""
    members = members_of(body)
    about: dict[str, Any] = {"address": recipient}
    if hops:
        about["via"] = list(hops)
    if automatic:
        about["automatic"] = True
    if not proven:
        about["untrusted"] = True
    passed = {name: _given(members.get(name), absent) for name, absent in PASSED.items()}
    ours = {
        "coordination": _coordination(members, recipient),
        "sender_verification": "pass" if proven else "none",
        "gateway": about,
    }
    return render(
        {
            "message_id": members["message_id"],
            "sender": members["sender"],
            **encode({"recipient": recipient}),
            **passed,
            **encode(ours),
        }
    )


def webhook_id_of(message: UUID, recipient: str) -> str:
    """Returns the webhook id: the same for every attempt of one delivery, and of no other."""
    return f"msg_{blake2b(message.bytes + recipient.encode(), digest_size=16).hexdigest()}"


def _given(value: msgspec.Raw | None, absent: bytes) -> bytes | msgspec.Raw:
    return absent if value is None or bytes(value) in (b"null", b'""') else value


def _coordination(members: Mapping[str, msgspec.Raw], recipient: str) -> dict[str, Any] | None:
    """Returns the workflow it belongs to, and whether the agent's answer is awaited there."""
    block = _decoded(members, "coordination")
    workflow = _decoded(members, "workflow_id") or (block or {}).get("workflow_id")
    if not block and not workflow:
        return None
    return {
        "workflow_id": workflow,
        "type": block.get("type") if block else None,
        "requires_response": bool(block) and _is_asked(block.get("required_responses"), recipient),
    }


def _decoded(members: Mapping[str, msgspec.Raw], name: str) -> Any:
    return msgspec.json.decode(members[name]) if name in members else None


def _is_asked(required: object, recipient: str) -> bool:
    named = {_name(each) for each in required} if isinstance(required, list) else set()
    return _name(recipient) in named


def _name(address: object) -> object:
    try:
        return parse_address(address, "required_responses").name
    except AMTPError:
        return None
