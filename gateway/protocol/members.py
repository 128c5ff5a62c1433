"""The top-level members of a body as raw bytes, so that members we do not change keep theirs.

All bodies here have been read by `parse_message`: well-formed, one object, and never with a `gateway`,
`sender_verification` or `status` of their own.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

COMPARED_BYTES_MAX = (
    128 * 1024
)  # of each of two bodies whose digests differ: larger ones take too long to compare
CONTENT_BYTES = 16  # of the digest: a sender could only make messages of its own collide

# Ours to tell an agent, never a sender's.
ANNOTATIONS = frozenset({"gateway", "sender_verification", "status"})
# A message handed in again is the same message although these differ.
IDENTITY = ANNOTATIONS | {
    "version",
    "message_id",
    "idempotency_key",
    "timestamp",
    "recipients",
    "signature",
}
# In these, `null` and "" mean absent.
OPTIONAL = frozenset(
    {
        "subject",
        "headers",
        "in_reply_to",
        "schema",
        "response_type",
        "workflow_id",
        "coordination",
        "attachments",
    }
)
ABSENT = (b"null", b'""')
# They say nothing either: headers that a gateway added its own to are empty again when it is taken out.
_SAYS_NOTHING = (*ABSENT, b"{}")

_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode


def members_of(body: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    """Returns the members by name, in order, each with the bytes of its value."""
    return _decoder.decode(body)


def render(members: Mapping[str, bytes | msgspec.Raw]) -> bytes:
    return b"{" + b",".join([b"%b:%b" % (_encode(name), value) for name, value in members.items()]) + b"}"


def with_recipients(body: bytes, recipients: Sequence[str], *, idempotency_key: str | None = None) -> bytes:
    """Returns the copy for one destination; `idempotency_key` is set where the sender gave none.

    Where that changes nothing it is the body itself, byte for byte.
    """
    members: dict[str, bytes | msgspec.Raw] = {**members_of(body)}
    changed = {}
    if msgspec.json.decode(members["recipients"]) != list(recipients):
        changed["recipients"] = msgspec.json.encode(recipients)
    if idempotency_key is not None and bytes(members.get("idempotency_key", b"null")) in ABSENT:
        if not changed and "idempotency_key" not in members:
            return annotate(body, idempotency_key=idempotency_key)
        changed["idempotency_key"] = msgspec.json.encode(idempotency_key)
    return render(members | changed) if changed else body


def annotate(body: bytes, **members: Any) -> bytes:
    """Returns `body` with our members, which it does not have yet, put in front."""
    return _encode(members)[:-1] + b"," + body[1:] if members else body


def content_of(members: Mapping[str, bytes | msgspec.Raw]) -> bytes:
    """Returns a digest of the content, without recipients and whatever else may differ in a repetition."""
    said: list[bytes | msgspec.Raw] = []
    for name in sorted(members.keys() - IDENTITY):
        value = members[name]
        if name not in OPTIONAL or bytes(value) not in _SAYS_NOTHING:
            said += (name.encode(), value)
    said.append(b"")
    # NUL ends each part: it stands in no name and in no JSON value.
    return blake2b(b"\0".join(said), digest_size=CONTENT_BYTES).digest()


def same_content(one: bytes, other: bytes) -> bool:
    """Compares two bodies apart from spelling: the slow check, for digests that differ.

    A large one that is spelled otherwise says something else: nobody writes one anew to send it again.
    """
    if max(len(one), len(other)) > COMPARED_BYTES_MAX:
        return False
    return _equal(_said(one), _said(other))


def _said(body: bytes) -> dict[str, Any]:
    return {
        name: value
        for name, value in msgspec.json.decode(body).items()
        if name not in IDENTITY and not (name in OPTIONAL and value in (None, "", {}))
    }


def _equal(one: Any, other: Any) -> bool:
    """Compares JSON values: in Python True equals 1, in JSON it does not."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


def encode(members: Mapping[str, Any]) -> dict[str, bytes]:
    return {name: _encode(value) for name, value in members.items()}
