"""The endpoints for load balancers, orchestrators and monitors: liveness, readiness, metrics.

The causes of unreadiness, and the metrics, are shown on listeners for operators only.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from gateway import __version__
from gateway.http.answers import Answer, answer_json
from gateway.http.request import Request
from gateway.http.roles import Role
from gateway.http.routing import Route
from gateway.journal.metrics import CONTENT_TYPE, Metrics
from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.message import VERSION
from gateway.protocol.timestamp import render_timestamp
from gateway.receive.openapi_operations import HEALTH, METRICS, READY
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.health import Ailment, ailment

RETRY_AFTER_SECONDS = 5
REMEMBERED_SECONDS = 1.0  # how long the last result is reused


@dataclass(frozen=True, slots=True)
class Cause:
    """The cause why the gateway is not ready, with its remedy."""

    name: str
    text: str


DRAINING = Cause(
    "draining", "The gateway is shutting down: it finishes its requests and accepts no new ones."
)

Look = Callable[[], Awaitable[Cause | None]]

REMEDIES = {
    Ailment.AWAY: "The database does not answer: check that it runs and that database.url leads to it.",
    Ailment.READ_ONLY: "The database takes no writes: point database.url at the primary, or make room there.",
    Ailment.BEHIND: "The schema is older than this release: run amtp migrate.",
}


class DatabaseLook:
    """A check of the database; its result is reused for a while."""

    def __init__(self, database: Database, remembered_seconds: float = REMEMBERED_SECONDS) -> None:
        self._database = database
        self._remembered_seconds = remembered_seconds
        self._looking = asyncio.Lock()
        self._good_until = 0.0
        self._cause: Cause | None = None

    async def __call__(self) -> Cause | None:
        async with self._looking:
            if monotonic() >= self._good_until:
                ill = await ailment(self._database)
                self._cause = None if ill is None else Cause(ill.value, REMEDIES[ill])
                self._good_until = monotonic() + self._remembered_seconds
            return self._cause


def disk_look(free_bytes: Callable[[], int], free_bytes_min: int) -> Look:
    async def look() -> Cause | None:
        free = free_bytes()
        if free >= free_bytes_min:
            return None
        text = f"The disk has {free >> 20} MB free, {free_bytes_min >> 20} MB are needed: make room."
        return Cause("disk_nearly_full", text)

    return look


def draining_look(draining: Callable[[], bool]) -> Look:
    async def look() -> Cause | None:
        return DRAINING if draining() else None

    return look


class HealthDoor:
    def __init__(self, *, looks: Sequence[Look], metrics: Metrics, clock: Clock) -> None:
        """`looks` are the checks of readiness."""
        self._looks = tuple(looks)
        self._metrics = metrics
        self._clock = clock

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/health", self.health, operation=HEALTH),
            Route("GET", "/ready", self.ready, operation=READY),
            Route("GET", "/metrics", self.metrics, frozenset({Role.ADMIN}), METRICS),
        ]

    async def health(self, _request: Request) -> Answer:
        """Answers that the process is alive, even if the database is down: a restart would not help that."""
        return answer_json(
            {
                "status": "healthy",
                "healthy": True,
                "version": __version__,
                "protocol": VERSION,
                "timestamp": render_timestamp(self._clock.now()),
            }
        )

    async def ready(self, request: Request) -> Answer:
        causes = [cause for look in self._looks if (cause := await look()) is not None]
        if not causes:
            return answer_json({"status": "ready", "ready": True})
        told = Role.ADMIN in request.roles
        raise AMTPError(
            Code.TEMPORARY_FAILURE,
            " ".join(["The gateway is not ready.", *(cause.text for cause in causes if told)]),
            {"causes": [cause.name for cause in causes]} if told else None,
            retry_after=RETRY_AFTER_SECONDS,
        )

    async def metrics(self, _request: Request) -> Answer:
        return Answer(200, self._metrics.render(), CONTENT_TYPE)
