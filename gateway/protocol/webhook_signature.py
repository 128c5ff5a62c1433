"""Standard Webhooks: signs what a gateway posts to an agent's URL, and verifies it.

`webhook-id`, `webhook-timestamp` and the body are signed together with HMAC-SHA256. `webhook-signature` lists
one signature for each live secret, so that a secret is changed without a lost message: both sides may hold
two for a while, and one match is enough.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from gateway.protocol.errors import AMTPError, Code

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
PREFIX: Final = "whsec_"
VERSION: Final = "v1"
TOLERANCE: Final = timedelta(minutes=5)
KEY_BYTES_MIN, KEY_BYTES_MAX = 16, 128  # shorter is guessed; longer gains nothing
OWN_CHARACTERS_MIN, OWN_CHARACTERS_MAX = 16, 128  # of a secret that is not written as whsec_
SIGNATURES_MAX: Final = 16  # looked at in one header; two secrets make two

# No full stop: it ends the id in what is signed, and where it may stand in the id the same signature would
# vouch for another split.
_ID = re.compile(r"[A-Za-z0-9_:-]{1,255}")
_SECONDS = re.compile(r"[0-9]{1,11}")  # to the year 5138


@dataclass(frozen=True, slots=True)
class Signed:
    """A verified webhook: its sender holds the secret. A retry has the same id and another time."""

    id: str
    at: datetime


def render_secret(key: bytes) -> str:
    """Returns a secret as it is shown to its holders; 32 random bytes make a good key."""
    return PREFIX + base64.b64encode(key).decode()


def parse_secret(text: str, field: str = "secret") -> bytes:
    """Returns the key of a secret: `whsec_` and base64, or a caller's own text as its UTF-8 bytes."""
    if text.startswith(PREFIX):
        try:
            key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
        except binascii.Error:
            key = b""
        if KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
            return key
        remedy = f"behind {PREFIX} must stand {KEY_BYTES_MIN} to {KEY_BYTES_MAX} bytes as base64"
    else:
        if OWN_CHARACTERS_MIN <= len(text) <= OWN_CHARACTERS_MAX:
            try:
                return text.encode()
            except UnicodeEncodeError:
                pass
        remedy = f"must be {OWN_CHARACTERS_MIN} to {OWN_CHARACTERS_MAX} characters, or {PREFIX} and base64"
    raise AMTPError(Code.INVALID_MESSAGE_FORMAT, f"{field} {remedy}.", {"field": field})


def sign(webhook_id: str, at: datetime, body: bytes, secrets: Iterable[str]) -> dict[str, str]:
    """Returns the three headers for `body`, with one signature for each secret."""
    if not _ID.fullmatch(webhook_id):
        raise ValueError(f"a webhook id is 1 to 255 of A-Z a-z 0-9 _ : -, not {webhook_id!r}")
    seconds = str(int(at.timestamp()))
    keys = [parse_secret(secret) for secret in secrets]
    if not keys:
        raise ValueError("a webhook is signed with at least one secret")
    signatures = (_signature(key, webhook_id, seconds, body) for key in keys)
    return {
        ID: webhook_id,
        TIMESTAMP: seconds,
        SIGNATURE: " ".join(f"{VERSION},{signature.decode()}" for signature in signatures),
    }


def verify(headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: datetime) -> Signed:
    """Verifies a webhook against the secrets and the clock; raises SIGNATURE_INVALID.

    It does not detect replays: to refuse them, remember (id, time).
    """
    given = {name.lower(): value for name, value in headers.items()}
    webhook_id, seconds = given.get(ID, ""), given.get(TIMESTAMP, "")
    if not _ID.fullmatch(webhook_id):
        raise _invalid(ID, "is missing or no webhook id")
    if not _SECONDS.fullmatch(seconds):
        raise _invalid(TIMESTAMP, "is missing or no number of seconds")
    at = datetime.fromtimestamp(int(seconds), UTC)
    if abs(now - at) > TOLERANCE:
        minutes = int(TOLERANCE.total_seconds()) // 60
        raise _invalid(TIMESTAMP, f"is more than {minutes} minutes away from this machine's clock")
    signatures = _signatures(given.get(SIGNATURE, ""))
    expected = [_signature(parse_secret(secret), webhook_id, seconds, body) for secret in secrets]
    # Every pair is compared, so that the time taken tells nothing about which one fits.
    if sum(hmac.compare_digest(one, other) for one in expected for other in signatures) == 0:
        raise _invalid(SIGNATURE, "fits none of the secrets")
    return Signed(webhook_id, at)


def _signature(key: bytes, webhook_id: str, seconds: str, body: bytes) -> bytes:
    signed = b"%b.%b.%b" % (webhook_id.encode(), seconds.encode(), body)
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256))


def _signatures(header: str) -> list[bytes]:
    """Returns the signatures of our version; others are ignored."""
    split = (entry.partition(",") for entry in header.split(" ", SIGNATURES_MAX)[:SIGNATURES_MAX])
    return [value.encode("utf-8", "replace") for version, _, value in split if version == VERSION and value]


def _invalid(field: str, why: str) -> AMTPError:
    return AMTPError(Code.SIGNATURE_INVALID, f"The header {field} {why}.", {"field": field})
