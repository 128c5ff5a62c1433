"""A valid message, ways to write it, and values to try on its members."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from gateway.protocol.message import Message, parse_message

NOW = datetime(2026, 3, 1, 12, 0, 0, 250_000, UTC)
ROW = UUID("019cada0-0000-7000-8000-000000000001")

ATTACHMENT = {
    "filename": "offer.pdf",
    "content_type": "application/pdf",
    "size": 1234,
    "hash": "sha256:" + "ab" * 32,
    "url": "https://files.acme.test/offer.pdf?v=1",
}
SIGNATURE = {"algorithm": "ES256", "keyid": "s1", "value": "c2lnbmF0dXJl"}
HEADERS = {
    "priority": "high",
    "ttl": 3600,
    "expires-at": "2026-03-01T14:00:00Z",
    "deliver-after": "2026-03-01T12:30:00+00:00",
    "repeat": "0 9 * * MON-FRI",
    "delivery": "exactly_once",
    "kind": "request",
    "correlation-id": "order 7",
    "thread-id": "t-1",
    "reply-to": "desk@acme.test",
    "receipt": "read",
    "auto-submitted": "auto-generated",
    "x-colour": {"any": ["thing"]},
}
COMPLETE: dict[str, Any] = {
    "version": "1.0",
    "message_id": "01890a5d-ac96-774b-bcce-b302099a8057",
    "idempotency_key": "order-7",
    "timestamp": "2026-03-01T11:59:59.5+01:00",
    "sender": "buyer@acme.test",
    "recipients": ["seller@shop.test", "audit+2026@shop.test"],
    "subject": "Angebot für 👩‍🌾",
    "schema": "agntcy:commerce.order.v1",
    "in_reply_to": "earlier",
    "response_type": "agntcy:commerce.receipt.v1",
    "workflow_id": "w-1",
    "headers": HEADERS,
    "payload": {"lines": [{"sku": "a", "n": 1, "price": 1.10}], "note": None},
    "coordination": {"type": "parallel"},
    "attachments": [ATTACHMENT],
    "signature": SIGNATURE,
    "x-unknown": [1, {"two": 2}],
}
MINIMAL: dict[str, Any] = {
    "version": "1.0",
    "sender": "buyer@acme.test",
    "recipients": ["seller@shop.test"],
    "payload": 1,
}
LINES = ("subject", "schema", "in_reply_to", "response_type", "workflow_id")


def written(message: Any) -> bytes:
    return json.dumps(message).encode()


def changed(**members: Any) -> bytes:
    return written(COMPLETE | members)


def without(*names: str) -> bytes:
    return written({name: value for name, value in COMPLETE.items() if name not in names})


def read(raw: bytes, *, local: bool = False) -> Message:
    return parse_message(raw, row=ROW, now=NOW, local=local)


# NUL is refused anywhere, and a surrogate is no character.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: not number.is_integer())
    | texts
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    """A valid message with any of its optional members, absent in any way, and a payload of any kind."""
    message = dict(MINIMAL, payload=draw(values))
    for name in sorted(COMPLETE.keys() - MINIMAL.keys()):
        match draw(st.sampled_from(("absent", "null", "empty", "present"))):
            case "null":
                message[name] = None
            case "empty":
                message[name] = ""
            case "present":
                message[name] = COMPLETE[name]
    headers = draw(st.lists(st.sampled_from(sorted(HEADERS)), unique=True))
    if message.get("headers"):
        message["headers"] = {name: HEADERS[name] for name in headers}
    names = draw(st.permutations(sorted(message)))
    return {name: message[name] for name in names}


@st.composite
def spellings(draw: st.DrawFn) -> tuple[dict[str, Any], bytes]:
    """A valid message and one of the many ways to write it."""
    message = draw(messages())
    body = json.dumps(
        message,
        ensure_ascii=draw(st.booleans()),
        indent=draw(st.sampled_from((None, 0, 2))),
        separators=draw(st.sampled_from((None, (",", ":"), (" ,\t", "\r\n: ")))),
    )
    blank = st.text(" \t\r\n", max_size=2)
    return message, (draw(blank) + body + draw(blank)).encode()
