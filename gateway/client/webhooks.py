"""Verification of webhook requests: signature, age and replay."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.webhook_signature import SIGNATURE, TOLERANCE, Signed, verify

SEEN_MAX = 100_000  # only signed requests enter, so no stranger can push others out


class Verifier:
    """A verifier that remembers accepted requests for as long as their signatures are valid.

    A request is accepted once. A retry of the gateway is another request: same id, another time.
    """

    def __init__(self, seen_max: int = SEEN_MAX) -> None:
        self._seen: dict[Signed, None] = {}
        self._seen_max = seen_max

    def verify_webhook(
        self, headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: datetime | None = None
    ) -> Signed:
        """Checks that one of the secrets signed it and that it was not seen before; raises SIGNATURE_INVALID otherwise."""
        moment = now or datetime.now(UTC)
        signed = verify(headers, body, secrets, moment)
        if signed in self._seen:
            raise AMTPError(
                Code.SIGNATURE_INVALID, "This request was here before: it is a replay.", {"field": SIGNATURE}
            )
        self._forget(moment)
        self._seen[signed] = None
        return signed

    def _forget(self, now: datetime) -> None:
        """Forgets requests too old to be accepted again, and the oldest beyond the limit."""
        while self._seen:
            first = next(iter(self._seen))
            if now - first.at <= TOLERANCE and len(self._seen) < self._seen_max:
                break
            del self._seen[first]
