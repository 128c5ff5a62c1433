"""The operators' door to the queue: live deliveries, why they wait, and actions on them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from gateway.admit.authenticate import Authenticator
from gateway.admit.rules import require_admin
from gateway.features.operations.openapi import ACTS, FIND_QUEUED, SHOW_QUEUE_SHAPE, SHOW_QUEUED
from gateway.features.operations.queue import (
    CANCELLED,
    Act,
    Attempt,
    Effect,
    EndedMessage,
    LiveDelivery,
    Queue,
    Selection,
    Slice,
    attempts,
    shape,
    waiting,
)
from gateway.features.operations.selection import Chosen, selection_of_body, selection_of_query
from gateway.http.answers import Answer, answer_json
from gateway.http.bodies import reason_of
from gateway.http.parameters import count_of, limit_of
from gateway.http.request import Request, bad_parameter
from gateway.http.roles import Role
from gateway.http.routing import Route
from gateway.journal.journal import Journal
from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.timestamp import render_timestamp
from gateway.receive.agent_profile import BODY_BYTES_MAX, read_body
from gateway.report.failures import FAILURE, FailureFacts
from gateway.report.interests import Interests
from gateway.report.naming import Name
from gateway.report.postmaster import Postmaster
from gateway.store.admitted import Admitted, Rider
from gateway.store.database import Database

OPERATORS = frozenset({Role.ADMIN})
TOP_DEFAULT, TOP_MAX = 20, 1000  # destinations that the shape names

# The ages that the shape tells apart: the bucket before each bound, and the one behind the last.
BOUNDS_SECONDS = (60, 600, 3600, 4 * 3600, 86_400, 3 * 86_400)
BUCKETS = ("1m", "10m", "1h", "4h", "1d", "3d", "older")


class QueueDoor:
    def __init__(
        self,
        *,
        database: Database,
        authenticator: Authenticator,
        queue: Queue,
        postmaster: Postmaster,
        interests: Interests,
        journal: Journal,
    ) -> None:
        self._database = database
        self._authenticator = authenticator
        self._queue = queue
        self._postmaster = postmaster
        self._interests = interests
        self._journal = journal

    def routes(self) -> list[Route]:
        path = "/v1/admin/queue"
        return [
            Route("GET", path, self.find, OPERATORS, FIND_QUEUED),
            Route("GET", f"{path}/shape", self.shape, OPERATORS, SHOW_QUEUE_SHAPE),
            Route("GET", f"{path}/{{id}}", self.show, OPERATORS, SHOW_QUEUED),
            *(
                Route("POST", f"{path}/{act.value}", partial(self.act, act), OPERATORS, ACTS[act])
                for act in Act
            ),
        ]

    async def find(self, request: Request) -> Answer:
        await self._operator(request)
        limit = limit_of(request.query)
        selection = selection_of_query(request.query)
        found = await waiting(self._database, selection, after=_place(request.query), limit=limit + 1)
        return answer_json(_page(found, limit))

    async def show(self, request: Request) -> Answer:
        """Returns the live deliveries of one message, each with its attempts."""
        await self._operator(request)
        limit = limit_of(request.query)
        selection = Selection(ids=(request.params["id"],))
        found = await waiting(self._database, selection, after=_place(request.query), limit=limit + 1)
        if not found:
            raise AMTPError(
                Code.NOT_FOUND,
                "Nothing of a message with this id waits; /v1/messages/{id} says what became of it.",
            )
        return answer_json(_page(found, limit, await attempts(self._database, found[:limit])))

    async def shape(self, request: Request) -> Answer:
        await self._operator(request)
        top = count_of(request.query, "top", TOP_DEFAULT, 1, TOP_MAX)
        return answer_json(render_shape(await shape(self._database, BOUNDS_SECONDS, top)))

    async def act(self, act: Act, request: Request) -> Answer:
        actor = await self._operator(request)
        chosen = read_body(await request.json_body(BODY_BYTES_MAX), Chosen)
        selection, reason = selection_of_body(chosen), reason_of(chosen.reason)
        if chosen.dry_run:
            effect = await self._queue.count(act, selection)
        elif act is Act.CANCEL:
            report = partial(self._report, reason)
            effect = await self._queue.cancel(
                selection, actor=actor, reason=reason, report=report, riders=self._notices
            )
        else:
            effect = await self._queue.change(act, selection, actor=actor, reason=reason)
        for ended in effect.cancelled:
            for recipient in ended.recipients:
                self._journal.cancelled(ended.message_id, recipient, actor)
        return answer_json(_told(act, effect, dry_run=chosen.dry_run))

    async def _report(self, reason: str | None, ended: EndedMessage) -> Admitted | None:
        trouble = FailureFacts(
            FAILURE,
            ended.message_id,
            ended.sender,
            ended.addresses,
            Code.POLICY_DENIED,
            CANCELLED if reason is None else f"{CANCELLED} {reason}",
            ended.attempts,
            ended.last_attempt,
        )
        return await self._postmaster.report(trouble, proven=ended.proven, automatic=ended.automatic)

    def _notices(self, ended: EndedMessage) -> tuple[Rider, ...]:
        name = Name(ended.message, ended.message_id, ended.sender)
        return self._interests.cancelled(name, ended.recipients)

    async def _operator(self, request: Request) -> str:
        return require_admin(await self._authenticator.caller(request))


def why(one: LiveDelivery) -> str:
    """Returns why it is not delivered yet, in a sentence."""
    if one.under_way:
        return "It is on the way right now."
    if one.state == "held":
        return "An operator holds it."
    if one.paused is not None:
        return f"{one.destination} is paused: {one.paused}"
    if one.open_until is not None:
        return f"{one.destination} is failing: {one.trouble or 'every message fails there'}"
    if one.scheduled:
        return "It was sent to be delivered later."
    return one.error or "It waits for its turn."


def render_waiting(one: LiveDelivery) -> dict[str, Any]:
    next_attempt = None if one.state == "held" else max(filter(None, (one.due, one.open_until)))
    return {
        "message_id": one.message_id,
        "row": str(one.message),
        "sender": one.sender,
        "recipient": one.address,
        "destination": one.destination,
        "status": one.state,
        "under_way": one.under_way,
        "reason": why(one),
        "attempts": one.attempts,
        "accepted_at": render_timestamp(one.accepted_at),
        "expires_at": render_timestamp(one.expires_at),
        "first_attempt": moment(one.first_attempt),
        "last_attempt": moment(one.last_attempt),
        "next_attempt": moment(None if one.under_way else next_attempt),
        "last_code": one.code,
        "last_error": one.error,
    }


def render_attempt(one: Attempt) -> dict[str, Any]:
    return {
        "attempt": one.attempt,
        "at": render_timestamp(one.at),
        "via": one.via,
        "code": one.code,
        "error": one.error,
        "milliseconds": one.milliseconds,
    }


def render_shape(slices: Sequence[Slice]) -> dict[str, Any]:
    """Returns a row for each destination: how many deliveries of each age."""
    rows: dict[str | None, dict[str, int]] = {}
    for one in slices:
        ages = rows.setdefault(one.destination, dict.fromkeys(BUCKETS, 0))
        ages[BUCKETS[one.bucket]] += one.count
    total = {bucket: sum(ages[bucket] for ages in rows.values()) for bucket in BUCKETS}
    others = rows.pop(None, None)
    return {
        "ages": list(BUCKETS),
        "destinations": [{"destination": name, **_row(ages)} for name, ages in rows.items()],
        "others": None if others is None else _row(others),
        "total": _row(total),
    }


def moment(at: datetime | None) -> str | None:
    return None if at is None else render_timestamp(at)


def _row(ages: Mapping[str, int]) -> dict[str, Any]:
    return {"count": sum(ages.values()), "by_age": ages}


def _page(
    found: Sequence[LiveDelivery],
    limit: int,
    history: Mapping[tuple[UUID, str], Sequence[Attempt]] | None = None,
) -> dict[str, Any]:
    shown = found[:limit]
    items = [render_waiting(one) for one in shown]
    if history is not None:
        for one, item in zip(shown, items, strict=True):
            tried = history.get((one.message, one.recipient), ())
            item["history"] = [render_attempt(each) for each in tried]
    has_more = len(found) > limit
    return {
        "deliveries": items,
        "count": len(items),
        "has_more": has_more,
        "cursor": f"{shown[-1].message}~{shown[-1].recipient}" if has_more else None,
    }


def _place(query: Mapping[str, str]) -> tuple[UUID, str] | None:
    """Returns the place where the page before ended."""
    text = query.get("cursor")
    if text is None:
        return None
    row, _, recipient = text.partition("~")
    try:
        return UUID(row), recipient
    except ValueError:
        raise bad_parameter("cursor", "must be one that an answer gave") from None


def _told(act: Act, effect: Effect, *, dry_run: bool) -> dict[str, Any]:
    return {
        "action": act.value,
        "dry_run": dry_run,
        "matched": effect.matched,
        "busy": effect.busy,
        "changed": effect.changed,
        "has_more": effect.has_more,
    }
