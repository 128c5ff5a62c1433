"""The delivery of one notice: a signed POST, its result, and the time of the next attempt.

1. A target has taken a notice when it answers 2xx, whatever the body; a challenge must be repeated, too.
2. 410 disables the subscription. Everything else is temporary: a target may be repaired.
3. An attempt's record holds a status or a few words of ours, never the target's own words or its URL.
"""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from time import monotonic
from typing import Final

from gateway.deliver.answer import retry_after_of
from gateway.deliver.webhook import TROUBLE
from gateway.features.notifications.events import CHALLENGE, answers_challenge
from gateway.features.notifications.notices import DueNotice, Tried
from gateway.net.outbound import Kind, Outbound, OutboundError
from gateway.protocol.retry import delay_seconds
from gateway.protocol.webhook_signature import sign
from gateway.store.clock import Clock
from gateway.store.sealed import Sealer, SealError

TRY_SECONDS: Final = 15.0  # a lease outlives it
ANSWER_BYTES_MAX: Final = 16_384  # that are looked at; the answer to a challenge is short
SECRETS_REMEMBERED: Final = 4096  # opening a seal costs more than the signature
HEADERS: Final = {"Content-Type": "application/json", "X-AMTP-Version": "1.0"}
GONE: Final = 410


@dataclass(frozen=True, slots=True)
class TargetAnswer:
    """A target's answer: a status, or the reason why there is none."""

    status: int | None = None
    body: bytes = b""
    retry_after_seconds: float | None = None
    fault: str | None = None


def verdict_on(due: DueNotice, heard: TargetAnswer, now: datetime, draw: float, milliseconds: int) -> Tried:
    """Returns the result of an attempt. `draw` is random in [0, 1) and spreads the retries."""
    error = fault_of(due, heard)
    if error is None:
        return Tried(due, told=True, status=heard.status, milliseconds=milliseconds)
    wait = delay_seconds(due.attempts, draw, heard.retry_after_seconds)
    again: datetime | None = now + timedelta(seconds=wait)
    if heard.status == GONE or (again is not None and again >= due.until):
        again = None
    return Tried(due, False, again, heard.status, error, milliseconds)


def fault_of(due: DueNotice, heard: TargetAnswer) -> str | None:
    """Returns why the target has not taken it; None where it has."""
    if heard.status is None:
        return heard.fault or "The target did not answer."
    if not 200 <= heard.status < 300:
        return f"The target answered {heard.status}."
    if due.event == CHALLENGE and not answers_challenge(heard.body, due.challenge):
        return f"The target answered {heard.status} but did not repeat the challenge."
    return None


class Target:
    """The client that posts notices to their targets."""

    def __init__(self, outbound: Outbound, sealer: Sealer, clock: Clock, *, plain: bool = False) -> None:
        """Takes its collaborators; `plain` allows http:// URLs."""
        self._outbound = outbound
        self._plain = plain
        self._open = lru_cache(SECRETS_REMEMBERED)(sealer.open)
        self._clock = clock

    async def tell(self, due: DueNotice) -> Tried:
        started = monotonic()
        heard = await self._ask(due)
        milliseconds = int((monotonic() - started) * 1000)
        return verdict_on(due, heard, self._clock.now(), random.random(), milliseconds)

    async def _ask(self, due: DueNotice) -> TargetAnswer:
        try:
            secrets = [self._open(sealed) for sealed in due.secrets]
        except SealError:
            return TargetAnswer(fault="This gateway can't sign for the target at the moment.")
        signed = sign(str(due.id), self._clock.now(), due.body, secrets)
        status, headers, body = None, {}, bytearray()
        try:
            async with self._outbound.stream(
                due.url,
                {**HEADERS, **signed},
                method="POST",
                body=due.body,
                deadline_seconds=TRY_SECONDS,
                answer_bytes_max=ANSWER_BYTES_MAX,
                plain=self._plain,
            ) as download:
                status, headers = download.status, dict(download.headers)
                async for chunk in download.chunks:
                    body += chunk
        except OutboundError as error:
            if status is None:
                return TargetAnswer(fault=f"The target {_TROUBLE[error.kind]}.")
        return TargetAnswer(status, bytes(body), retry_after_of(headers))


_TROUBLE = {**TROUBLE, Kind.REFUSED_ADDRESS: "leads to an address that is not posted to"}
