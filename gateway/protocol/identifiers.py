"""Identifiers in the form that every implementation accepts, and derived ones for those of another form. Pure.

A message id of that form is a UUIDv7 and a key a UUIDv4, both written in lower case. Anything else is legal here, but
some gateways refuse it for good. Such a peer gets derived ones, and the header `amtp-original` beside them:

| member | derived from | so that |
|---|---|---|
| `message_id` | the row of the message | it is the same in every copy, and we recognise it in a reply |
| `idempotency_key` | the sender and the key | a repeated message has it although its row is another |
| `in_reply_to` | what the peer knows that message by; left out where it knows none | it finds what is answered |

A gateway of ours that gets the header restores what it says. `of` in it is the `message_id` it belongs to, so that a
reply with copied headers is not taken for the message it answers. Whoever can write the header could as well write
the members themselves: what is restored is judged as if it had come so, in the sender's own space of keys.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Final
from uuid import UUID

import msgspec

from gateway.protocol.members import ABSENT, encode, members_of, render

FEATURE: Final = "ids"  # in a domain's record: takes every identifier as it is
ORIGINALS: Final = "amtp-original"  # the header with what was replaced

_LOW_BITS: Final = 62
_LOW_MASK: Final = (1 << _LOW_BITS) - 1
_HIGH_MASK: Final = 0xFFF

_FORM: Final = r"[0-9a-f]{8}-[0-9a-f]{4}-%d[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
_UUID7 = re.compile(_FORM % 7)
# The form of each as it stands in a body; "" and null mean that there is none.
_FITS = {
    name: re.compile(f'"{_FORM % version}"|""|null'.encode())
    for name, version in {"message_id": 7, "idempotency_key": 4, "in_reply_to": 7}.items()
}


def uuid7(milliseconds: int, random: int) -> UUID:
    """Returns the UUIDv7 of this time and these 74 bits."""
    high, low = random >> _LOW_BITS & _HIGH_MASK, random & _LOW_MASK
    return UUID(int=milliseconds << 80 | 0x7 << 76 | high << 64 | 0x2 << 62 | low)


def uuid4_of(*parts: str) -> str:
    """Returns the same UUIDv4 for the same parts, and another for any others."""
    return str(UUID(int=_hash("\0".join(parts).encode()), version=4))


def tick_id(schedule: UUID, tick: datetime) -> str:
    """Returns the id of what a schedule sends at one tick."""
    milliseconds = int(tick.timestamp() * 1000)
    return str(uuid7(milliseconds, _hash(schedule.bytes + milliseconds.to_bytes(8))))


def derived_id(row: UUID) -> str:
    """Returns the id that stands for a message id of another form; `is_derived` recognises it."""
    milliseconds, low = row.int >> 80, _hash(row.bytes) & _LOW_MASK
    return str(uuid7(milliseconds, _mark(milliseconds, low) << _LOW_BITS | low))


def is_derived(message_id: str) -> bool:
    """Returns whether `derived_id` may have made it; one in 4096 other UUIDv7s looks the same."""
    if not _UUID7.fullmatch(message_id):
        return False
    number = UUID(message_id).int
    return number >> 64 & _HIGH_MASK == _mark(number >> 80, number & _LOW_MASK)


def _mark(milliseconds: int, low: int) -> int:
    return _hash(milliseconds.to_bytes(8) + low.to_bytes(8)) & _HIGH_MASK


def _hash(text: bytes) -> int:
    return int.from_bytes(blake2b(text, digest_size=16).digest())


def unfit(members: Mapping[str, msgspec.Raw]) -> dict[str, str]:
    """Returns the identifiers that some implementations refuse, by the name of their member."""
    return {
        name: msgspec.json.decode(value)
        for name, form in _FITS.items()
        if (value := members.get(name)) is not None and not form.fullmatch(value)
    }


def replace_identifiers(
    members: Mapping[str, msgspec.Raw],
    originals: Mapping[str, str],
    *,
    row: UUID,
    sender: str,
    in_reply_to: str | None,
) -> dict[str, bytes | msgspec.Raw]:
    """Returns the members of the message `row` with others in the place of its `originals`, and these in a header.

    `in_reply_to` is what the peer knows that message by; None leaves the member out.
    """
    derived = {
        "message_id": derived_id(row),
        "idempotency_key": uuid4_of(sender, originals.get("idempotency_key", "")),
        "in_reply_to": in_reply_to,
    }
    kept = {name: value for name, value in members.items() if name not in originals}
    given = encode({name: derived[name] for name in originals if derived[name] is not None})
    of = given.get("message_id") or members["message_id"]
    headers = _headers(members) | {ORIGINALS: render({"of": of, **encode(originals)})}
    return {**kept, **given, "headers": render(headers)}


def restore_identifiers(raw: bytes) -> tuple[bytes, str | None]:
    """Returns a body with the identifiers that its sender gave it, and the message id it came under, if another.

    Nothing is restored where the header belongs to another message, or is none of ours.
    """
    members = members_of(raw)
    headers = _headers(members)
    try:
        originals = msgspec.json.decode(headers.pop(ORIGINALS), type=dict[str, str])
        came_as: str = msgspec.json.decode(members.get("message_id", b"null"), type=str)
    except msgspec.ValidationError:
        return raw, None
    if originals.get("of") != came_as:
        return raw, None
    restored = encode({name: originals[name] for name in _FITS if name in originals})
    rest = {name: value for name, value in members.items() if name != "headers"}
    if headers:
        restored["headers"] = render(headers)
    return render({**rest, **restored}), came_as if "message_id" in originals else None


def _headers(members: Mapping[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    raw = members.get("headers", b"null")
    return {} if bytes(raw) in ABSENT else members_of(raw)
