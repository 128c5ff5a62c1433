"""The operators' door to destinations: their backlog, the reasons for it, and pause, resume, flush and reset."""

from typing import Any, assert_never

import msgspec

from gateway.admit.authenticate import Authenticator
from gateway.admit.rules import require_admin
from gateway.features.operations.destinations import DestinationState, Traffic, destination, destinations
from gateway.features.operations.openapi import EXPLAIN, FIND_DESTINATIONS, FLUSH, PAUSE, RESET, RESUME
from gateway.features.operations.queue_door import OPERATORS, moment
from gateway.features.operations.selection import destination_of
from gateway.flow.lane import Lane
from gateway.flow.lanes import Lanes
from gateway.http.answers import Answer, answer_json
from gateway.http.bodies import reason_of
from gateway.http.parameters import limit_of
from gateway.http.request import Request
from gateway.http.routing import Route
from gateway.protocol.discovery import Broken, Silent, Speaks
from gateway.protocol.fields import fault
from gateway.receive.agent_profile import BODY_BYTES_MAX, read_body
from gateway.route.decide import Temporary
from gateway.route.directory import Directory, Known
from gateway.route.outage import Outage
from gateway.store.database import Database

PAUSE_SECONDS_MAX = 30 * 86_400  # longer than mail is kept waiting


class Pause(msgspec.Struct, forbid_unknown_fields=True):
    reason: str | None = None
    expires_in: int | None = None  # seconds; without it, until it is resumed


class TrafficDoor:
    def __init__(
        self,
        *,
        database: Database,
        authenticator: Authenticator,
        traffic: Traffic,
        lanes: Lanes,
        directory: Directory,
    ) -> None:
        self._database = database
        self._authenticator = authenticator
        self._traffic = traffic
        self._lanes = lanes
        self._directory = directory

    def routes(self) -> list[Route]:
        one = "/v1/admin/destinations/{destination}"
        return [
            Route("GET", "/v1/admin/destinations", self.find, OPERATORS, FIND_DESTINATIONS),
            Route("GET", f"{one}/explain", self.explain, OPERATORS, EXPLAIN),
            Route("POST", f"{one}/pause", self.pause, OPERATORS, PAUSE),
            Route("POST", f"{one}/resume", self.resume, OPERATORS, RESUME),
            Route("POST", f"{one}/flush", self.flush, OPERATORS, FLUSH),
            Route("POST", f"{one}/reset", self.reset, OPERATORS, RESET),
        ]

    async def find(self, request: Request) -> Answer:
        await self._operator(request)
        limit = limit_of(request.query)
        after = request.query.get("cursor", "")
        found = await destinations(self._database, after=after, limit=limit + 1)
        has_more = len(found) > limit
        return answer_json(
            {
                "destinations": [render_destination(one) for one in found[:limit]],
                "count": min(len(found), limit),
                "has_more": has_more,
                "cursor": found[limit - 1].name if has_more else None,
            }
        )

    async def explain(self, request: Request) -> Answer:
        await self._operator(request)
        name = destination_of(request.params["destination"])
        found = await destination(self._database, name)
        lane = self._lanes.known(name)
        known = None if "@" in name else self._directory.known(name)
        return answer_json(
            {
                **render_destination(found),
                "reasons": reasons(found, lane, known, None if "@" in name else self._directory.outage),
                "window": None if lane is None else render_lane(lane),
                "directory": None if known is None else render_known(name, known),
            }
        )

    async def pause(self, request: Request) -> Answer:
        actor = await self._operator(request)
        name = destination_of(request.params["destination"])
        said = read_body(await request.json_body(BODY_BYTES_MAX), Pause)
        reason = reason_of(said.reason)
        if reason is None:
            raise fault("reason", "is missing", "say why, for whoever asks next")
        seconds = said.expires_in
        if seconds is not None and not 1 <= seconds <= PAUSE_SECONDS_MAX:
            raise fault("expires_in", "is out of range", f"write seconds from 1 to {PAUSE_SECONDS_MAX}")
        await self._traffic.pause(name, actor=actor, reason=reason, seconds=seconds)
        return await self._told(name)

    async def resume(self, request: Request) -> Answer:
        actor = await self._operator(request)
        name = destination_of(request.params["destination"])
        await self._traffic.resume(name, actor=actor)
        return await self._told(name)

    async def reset(self, request: Request) -> Answer:
        actor = await self._operator(request)
        name = destination_of(request.params["destination"])
        await self._traffic.reset(name, actor=actor)
        return await self._told(name)

    async def flush(self, request: Request) -> Answer:
        actor = await self._operator(request)
        name = destination_of(request.params["destination"])
        flushed = await self._traffic.flush(name, actor=actor)
        return await self._told(name, flushed=flushed)

    async def _told(self, name: str, **beside: int) -> Answer:
        return answer_json({**render_destination(await destination(self._database, name)), **beside})

    async def _operator(self, request: Request) -> str:
        return require_admin(await self._authenticator.caller(request))


def reasons(
    found: DestinationState, lane: Lane | None, known: Known | None, outage: Outage | None = None
) -> list[str]:
    """Returns why the mail for a destination is not delivered now, the weightiest reason first."""
    told = []
    if found.paused_at is not None:
        until = f"until {moment(found.paused_until)}" if found.paused_until else "until it is resumed"
        told.append(f"Paused by {found.paused_by} {until}: {found.pause_reason}")
    if found.open_until is not None:
        last = f" Last error: {found.last_error}" if found.last_error else ""
        told.append(
            f"It failed {found.failures} times in a row. At {moment(found.open_until)} one message tries it again,"
            f" and the others follow if it arrives.{last}"
        )
    if known is not None and not isinstance(known.result, Speaks):
        told.append(render_known(found.name, known)["told"])
    if outage is not None and outage.since is not None:
        told.append(
            f"The name servers have not answered since {moment(outage.since)} ({outage.reason})."
            " What they said within the last seven days is used."
        )
    told += [sentence for count, sentence in _counted(found, lane) if count]
    return told or ["Nothing waits for it."]


def _counted(found: DestinationState, lane: Lane | None) -> list[tuple[int, str]]:
    backing_off = found.queued - found.under_way - found.due - found.scheduled
    shut = found.paused_at is not None or found.open_until is not None
    pace = "" if shut or lane is None else f", {int(lane.window)} at once"
    last = f" Last error: {found.last_error}" if found.last_error and not found.open_until else ""
    return [
        (found.under_way, f"{found.under_way} on the way right now."),
        (found.due, f"{found.due} due and waiting for {'that' if shut else 'their turn'}{pace}."),
        (
            backing_off,
            f"{backing_off} failed before and wait for their next attempt, the first at"
            f" {moment(found.next_due)}.{last}",
        ),
        (found.scheduled, f"{found.scheduled} to be delivered later, as their senders asked."),
        (found.held, f"{found.held} held by an operator."),
    ]


def state_of(found: DestinationState) -> str:
    """Returns the state of a destination, in a word."""
    if found.paused_at is not None:
        return "paused"
    if found.open_until is not None or found.failures:
        return "failing"
    if found.due or found.under_way:
        return "delivering"
    return "waiting" if found.queued else "idle"


def render_destination(found: DestinationState) -> dict[str, Any]:
    return {
        "destination": found.name,
        "state": state_of(found),
        "queued": found.queued,
        "held": found.held,
        "under_way": found.under_way,
        "due": found.due,
        "scheduled": found.scheduled,
        "oldest": moment(found.oldest),
        "next_attempt": moment(found.next_due),
        "last_attempt": moment(found.last_attempt),
        "failures": found.failures,
        "open_until": moment(found.open_until),
        "last_error": found.last_error,
        "last_failure": moment(found.last_failure),
        "last_success": moment(found.last_success),
        "paused": None if found.paused_at is None else _paused(found),
    }


def _paused(found: DestinationState) -> dict[str, Any]:
    return {
        "since": moment(found.paused_at),
        "by": found.paused_by,
        "reason": found.pause_reason,
        "until": moment(found.paused_until),
    }


def render_lane(lane: Lane) -> dict[str, Any]:
    """Returns how much this process sends there at once."""
    return {"size": int(lane.window), "active": lane.active, "batch": lane.batch}


def render_known(domain: str, known: Known) -> dict[str, Any]:
    """Returns what the directory holds on the domain, without a DNS query."""
    match known.result:
        case Speaks(capabilities):
            told = f"Its gateway is {capabilities.gateway_url}."
        case Silent():
            told = f"It publishes no AMTP gateway (no TXT record _amtp.{domain})."
        case Broken(reason):
            told = f"Its record in the DNS is broken: {reason}."
        case Temporary() as temporary:
            told = temporary.told(domain, operator=True)
        case _:
            assert_never(known.result)
    return {
        "told": told,
        "asked_at": moment(known.asked_at),
        "good_until": moment(known.good_until),
        "stale": known.stale,
    }
