"""The door to schedules, `/v1/schedules`: an agent's own, and all of them for operators.

A schedule is set up by handing in a message with `headers.repeat`.
"""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from gateway.admit.authenticate import Authenticator
from gateway.features.schedules.openapi import CANCEL, FIND
from gateway.features.schedules.schedules import Schedule, Schedules
from gateway.http.answers import Answer, answer_json
from gateway.http.parameters import cursor_of, limit_of, name_of
from gateway.http.request import Request
from gateway.http.roles import Role
from gateway.http.routing import Route
from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.message import members_of
from gateway.protocol.status import render_schedule
from gateway.protocol.timestamp import render_timestamp
from gateway.receive.status import Viewer, viewer_of

ROLES = frozenset({Role.AGENTS, Role.ADMIN})
SHOWN = ("recipients", "subject", "schema", "headers")  # of the message, beside its times


class ScheduleDoor:
    def __init__(self, *, schedules: Schedules, authenticator: Authenticator) -> None:
        self._schedules = schedules
        self._authenticator = authenticator

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/v1/schedules", self.find, ROLES, FIND),
            Route("DELETE", "/v1/schedules/{id}", self.cancel, ROLES, CANCEL),
        ]

    async def find(self, request: Request) -> Answer:
        caller = await self._authenticator.caller(request)
        limit = limit_of(request.query)
        agent = whose(viewer_of(caller), request.query)
        found = await self._schedules.find(agent=agent, after=cursor_of(request.query), limit=limit + 1)
        shown = found[:limit]
        return answer_json(
            {
                "schedules": [render(schedule) for schedule in shown],
                "count": len(shown),
                "has_more": len(found) > limit,
                "cursor": str(shown[-1].id) if shown else None,
            }
        )

    async def cancel(self, request: Request) -> Answer:
        caller = await self._authenticator.caller(request)
        agent = whose(viewer_of(caller), {})
        number = id_of(request.params["id"])
        found = number and await self._schedules.cancel(
            number, agent=agent, actor=caller.name or "development"
        )
        if not found:
            raise AMTPError(Code.NOT_FOUND, "There is no schedule of this id that is yours.")
        return answer_json(render(found))


def whose(viewer: Viewer, query: Mapping[str, str]) -> str | None:
    """Returns the agent whose schedules are meant; None: everyone's, which operators see."""
    wanted = name_of(query, "sender")
    if viewer.operator:
        return wanted
    if viewer.agent is None:
        raise AMTPError(Code.POLICY_DENIED, "This takes an agent's own key, or an admin key.")
    if wanted not in (None, viewer.agent):
        raise AMTPError(Code.POLICY_DENIED, f"You see your own schedules only, those of {viewer.agent}.")
    return viewer.agent


def id_of(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def render(schedule: Schedule) -> dict[str, Any]:
    members = members_of(schedule.body)
    rendered: dict[str, Any] = {
        **render_schedule(schedule.state),
        "message_id": schedule.message_id,
        "sender": schedule.agent,
        "created_at": render_timestamp(schedule.created_at),
        "last_at": None if schedule.last_at is None else render_timestamp(schedule.last_at),
        "ticks": schedule.ticks,
        "message": {name: members[name] for name in SHOWN if name in members},
    }
    if schedule.ended_at is not None:
        rendered |= {"ended_at": render_timestamp(schedule.ended_at), "end_reason": schedule.end_reason}
    return rendered
