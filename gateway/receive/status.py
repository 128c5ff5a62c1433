"""The endpoints for the status of messages, for their senders, recipients and operators.

1. A sender sees every recipient, a recipient only itself; others get NOT_FOUND.
2. Several messages may share a public id: the caller's own comes first, and `sender` chooses.
3. The sender and operators can cancel deliveries that have not begun. Repeating it does no harm.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import UUID

import msgspec

from gateway.admit.authenticate import Authenticator
from gateway.admit.caller import ADMIN, Caller
from gateway.admit.rules import require_known
from gateway.http.answers import Answer, answer_json
from gateway.http.parameters import cursor_of, limit_of, moment_of, name_of, offset_of
from gateway.http.request import Request, bad_parameter
from gateway.http.roles import Role
from gateway.http.routing import Route
from gateway.journal.journal import Journal
from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.message import members_of
from gateway.protocol.status import RecipientState, Status, render_status, status_of_message
from gateway.protocol.timestamp import render_timestamp
from gateway.receive.openapi_operations import CANCEL_MESSAGE, LIST_MESSAGES, SHOW_MESSAGE, SHOW_STATUS
from gateway.report.interests import Interests
from gateway.store.database import Database
from gateway.store.messages.listing import MessagePage, Wanted, listing
from gateway.store.messages.messages import FoundMessage, body_of, find, states
from gateway.store.queue.cancellation import Cancellation, Cancellations

RECIPIENTS_SHOWN_MAX = 10_000  # on one page, which ends early when they are reached
MESSAGES_AT_ONCE = 10  # of a page, so that too many recipients are noticed in time
STATUSES = {name: name for name in ("queued", "delivered", "failed", "partial")} | {"pending": "queued"}

# The members of a message shown beside its status: its envelope, not its content.
ENVELOPE = (
    "version",
    "timestamp",
    "subject",
    "schema",
    "in_reply_to",
    "response_type",
    "workflow_id",
    "headers",
)

UNDER_WAY = (Code.CONFLICT, "Its delivery is under way; try again when this attempt is over.")
ROLES = frozenset({Role.AGENTS, Role.ADMIN})


@dataclass(frozen=True, slots=True)
class Viewer:
    """The caller: an operator, who sees everything, or an agent."""

    agent: str | None
    operator: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """A message as far as its viewer may see it."""

    found: FoundMessage
    recipients: tuple[RecipientState, ...]
    own: bool  # the viewer may cancel it
    operator: bool = False  # the viewer is one
    others: tuple["Seen", ...] = ()  # messages of the same id, shown to operators


class StatusDoor:
    def __init__(
        self,
        *,
        database: Database,
        authenticator: Authenticator,
        cancellations: Cancellations,
        interests: Interests,
        journal: Journal,
    ) -> None:
        self._database = database
        self._authenticator = authenticator
        self._cancellations = cancellations
        self._interests = interests
        self._journal = journal

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/v1/messages", self.list_messages, ROLES, LIST_MESSAGES),
            Route("GET", "/v1/messages/{id}", self.show, ROLES, SHOW_MESSAGE),
            Route("GET", "/v1/messages/{id}/status", self.status, ROLES, SHOW_STATUS),
            Route("DELETE", "/v1/messages/{id}", self.cancel, ROLES, CANCEL_MESSAGE),
        ]

    async def status(self, request: Request) -> Answer:
        seen = await self._find(request, viewer_of(await self._caller(request)))
        return answer_json(render_seen(seen))

    async def show(self, request: Request) -> Answer:
        seen = await self._find(request, viewer_of(await self._caller(request)))
        body = await body_of(self._database, seen.found.row)
        if body is None:
            raise not_found()
        return answer_json({**render_seen(seen), "message": envelope_of(body)})

    async def list_messages(self, request: Request) -> Answer:
        viewer = viewer_of(await self._caller(request))
        page = await listing(self._database, wanted_by(viewer, request.query))
        items, cursor = await self._shown(viewer, page)
        return answer_json(
            {
                "messages": items,
                "message_count": len(items),
                "count": len(items),
                "has_more": cursor is not None,
                "cursor": None if cursor is None else str(cursor),
            }
        )

    async def _shown(self, viewer: Viewer, page: MessagePage) -> tuple[list[dict[str, Any]], UUID | None]:
        """Returns the items of a page and the cursor of the next one."""
        items: list[dict[str, Any]] = []
        recipients = 0
        for start in range(0, len(page.messages), MESSAGES_AT_ONCE):
            some = page.messages[start : start + MESSAGES_AT_ONCE]
            told = await states(self._database, [found.row for found in some])
            for found in some:
                seen = view(viewer, found, told.get(found.row, {}))
                if seen is not None:
                    items.append(render_seen(seen))
                    recipients += len(seen.recipients)
            if recipients >= RECIPIENTS_SHOWN_MAX and some[-1] is not page.messages[-1]:
                return items, some[-1].row
        return items, page.cursor

    async def cancel(self, request: Request) -> Answer:
        caller = await self._caller(request)
        viewer = viewer_of(caller)
        seen = await self._find(request, viewer)
        if not seen.own:
            raise AMTPError(Code.POLICY_DENIED, "Only its sender or an operator cancels a message.")
        if seen.others:
            raise AMTPError(
                Code.CONFLICT,
                f"{len(seen.others) + 1} messages have this id: say which by row, or by sender.",
                {"field": "row", "messages": [render_namesake(each) for each in (seen, *seen.others)]},
            )
        by = seen.found.sender == viewer.agent
        actor = viewer.agent or caller.name or "development"
        cancellation = await self._cancellations.cancel(
            seen.found.row,
            actor=actor,
            reason=f"Cancelled by {'its sender' if by else 'an operator'}.",
            operator=not by,
            riders=partial(self._interests.cancelled, seen.found),
        )
        for recipient in cancellation.cancelled:
            self._journal.cancelled(seen.found.message_id, recipient, actor)
        after = (await states(self._database, [seen.found.row]))[seen.found.row]
        check_cancelled(cancellation, after.values())
        return answer_json(render_seen(replace(seen, recipients=mark_under_way(after, cancellation))))

    async def _caller(self, request: Request) -> Caller:
        return await self._authenticator.caller(request)

    async def _find(self, request: Request, viewer: Viewer) -> Seen:
        return await seen_of(self._database, request, viewer)


async def seen_of(database: Database, request: Request, viewer: Viewer) -> Seen:
    """Returns the first message of the id in the path that the viewer may see; for operators with the others."""
    namesakes = await find(
        database,
        request.params["id"],
        sender=name_of(request.query, "sender"),
        own=viewer.agent,
        row=row_of_query(request.query),
    )
    told = await states(database, [found.row for found in namesakes])
    views = [view(viewer, found, told.get(found.row, {})) for found in namesakes]
    seen = [each for each in views if each is not None]
    if not seen:
        raise not_found()
    return replace(seen[0], others=tuple(seen[1:])) if viewer.operator else seen[0]


def row_of_query(query: Mapping[str, str]) -> UUID | None:
    """Returns the row that chooses among messages of one id."""
    text = query.get("row")
    try:
        return None if text is None else UUID(text)
    except ValueError:
        raise bad_parameter("row", "must be one that an answer gave") from None


def viewer_of(caller: Caller) -> Viewer:
    require_known(caller)
    return Viewer(caller.agent, caller.development or ADMIN in caller.scopes)


def view(viewer: Viewer, found: FoundMessage, told: Mapping[str, RecipientState]) -> Seen | None:
    """Returns the part of a message that the viewer may see; None if nothing."""
    own = viewer.operator or (found.proven and found.sender == viewer.agent)
    recipients = [state for name, state in told.items() if own or name == viewer.agent]
    return Seen(found, tuple(recipients), own, viewer.operator) if recipients else None


def wanted_by(viewer: Viewer, query: Mapping[str, str]) -> Wanted:
    """Parses the filter of a list, limited to what the viewer may see."""
    wanted = Wanted(
        sender=name_of(query, "sender"),
        recipient=name_of(query, "recipient"),
        status=_status(query),
        since=moment_of(query, "since"),
        before=cursor_of(query),
        offset=offset_of(query),
        limit=limit_of(query),
    )
    if viewer.operator:
        return wanted
    if viewer.agent is None:
        raise AMTPError(Code.POLICY_DENIED, "This takes an agent's own key, or an admin key.")
    if wanted.sender == viewer.agent or (wanted.sender is None and wanted.recipient != viewer.agent):
        return replace(wanted, sender=viewer.agent)
    if wanted.recipient in (None, viewer.agent):
        return replace(wanted, recipient=viewer.agent, alone=True)
    raise AMTPError(
        Code.POLICY_DENIED, f"You see your own messages only: name {viewer.agent} as sender or recipient."
    )


def _status(query: Mapping[str, str]) -> str | None:
    text = query.get("status")
    if text is not None and text not in STATUSES:
        raise bad_parameter("status", f"must be one of {', '.join(STATUSES)}")
    return None if text is None else STATUSES[text]


def check_cancelled(cancellation: Cancellation, after: Iterable[RecipientState]) -> None:
    """Raises CONFLICT if nothing was cancelled, now or before."""
    if any(state.status is Status.CANCELLED for state in after):
        return
    if cancellation.under_way:
        raise AMTPError(*UNDER_WAY)
    raise AMTPError(Code.CONFLICT, "Nothing is left to cancel: every recipient has its final status.")


def mark_under_way(
    told: Mapping[str, RecipientState], cancellation: Cancellation
) -> tuple[RecipientState, ...]:
    """Returns the states after a cancellation; recipients for whom it came too late have an error."""
    late = frozenset(cancellation.under_way)
    return tuple(
        msgspec.structs.replace(state, error=UNDER_WAY) if name in late else state
        for name, state in told.items()
    )


def render_seen(seen: Seen) -> dict[str, Any]:
    found = seen.found
    shown = {**render_status(found.message_id, found.accepted_at, seen.recipients), "sender": found.sender}
    if seen.operator:
        shown["row"] = str(found.row)
    if seen.others:
        shown["others"] = [render_namesake(other) for other in seen.others]
    return shown


def render_namesake(seen: Seen) -> dict[str, Any]:
    """Renders one of several messages of an id, with what operators need to tell them apart."""
    return {
        "row": str(seen.found.row),
        "sender": seen.found.sender,
        "proven": seen.found.proven,
        "accepted_at": render_timestamp(seen.found.accepted_at),
        "status": status_of_message(state.status for state in seen.recipients),
    }


def envelope_of(body: bytes) -> dict[str, msgspec.Raw]:
    members = members_of(body)
    return {name: members[name] for name in ENVELOPE if name in members}


def not_found() -> AMTPError:
    return AMTPError(Code.NOT_FOUND, "There is no message of this id that is yours to see.")
