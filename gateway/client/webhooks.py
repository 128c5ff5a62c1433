"""For agents that are pushed to: is this request really from the gateway, and for the first time?"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.webhook_signature import SIGNATURE, TOLERANCE, Signed, verify

SEEN_MAX = 100_000  # only signed requests enter, so no stranger can push others out


class Verifier:
    """Remembers the requests it has let through, for as long as their signatures count.

    One request counts once. A retry of the gateway is another: it has the same id and another time.
    """

    def __init__(self, seen_max: int = SEEN_MAX) -> None:
        self._seen: dict[Signed, None] = {}
        self._seen_max = seen_max

    def verify_webhook(
        self, headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: datetime | None = None
    ) -> Signed:
        """Who sent it holds one of the secrets, and it was not here before; else AMTPError SIGNATURE_INVALID."""
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
        """What is too old to be accepted again, and the first ones when there are too many."""
        while self._seen:
            first = next(iter(self._seen))
            if now - first.at <= TOLERANCE and len(self._seen) < self._seen_max:
                break
            del self._seen[first]
