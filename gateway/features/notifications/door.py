"""The door to webhooks: managing subscriptions, their attempts, and replays.

1. An agent's key manages its own webhooks, which hear of messages it sent or received; operators have their own,
   which may hear of everything, and manage those of agents. To anybody else such a webhook does not exist.
2. A webhook is pending until its target repeats a challenge, so no target gets posts that it did not ask for.
"""

import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from gateway.admit.authenticate import Authenticator
from gateway.admit.caller import ADMIN, Caller
from gateway.admit.rules import require_known
from gateway.features.notifications import notices
from gateway.features.notifications.audience import Audience
from gateway.features.notifications.events import Event, Happening, render_challenge, render_event
from gateway.features.notifications.notices import REPLAYED_MAX, Notice
from gateway.features.notifications.openapi import (
    ADD,
    ATTEMPTS,
    CHALLENGE,
    CHANGE,
    FIND,
    REMOVE,
    REPLAY,
    ROTATE,
    SHOW,
    TEST,
)
from gateway.features.notifications.profile import (
    TargetFault,
    read_change,
    read_new,
    read_replay,
    read_secret_change,
    read_webhook_id,
    render_attempt,
    render_webhook,
)
from gateway.features.notifications.subscriptions import Change, NewSubscription, Subscription, Subscriptions
from gateway.http.answers import Answer, answer_json
from gateway.http.parameters import count_of, cursor_of, limit_of
from gateway.http.request import JSON, Request
from gateway.http.roles import Role
from gateway.http.routing import Route
from gateway.net.rates import Rates
from gateway.protocol.address import parse_address
from gateway.protocol.errors import AMTPError, Code
from gateway.receive.agent_profile import BODY_BYTES_MAX, mint_secret
from gateway.store.clock import Clock
from gateway.store.database import Database
from gateway.store.row_ids import Mint
from gateway.store.sealed import Sealer

CHALLENGE_BYTES: Final = 24
CHALLENGE_REST_SECONDS: Final = 10  # between two that are asked for: a target need not want them
OVERLAP: Final = timedelta(
    minutes=1
)  # that a replay goes back further: the order of events is not that of commits
NUMBER_MAX: Final = 999_999_999

ROLES = frozenset({Role.AGENTS, Role.ADMIN})
PENDING = "It is pending until its target answers the challenge that is posted to it."
KEEP = "Keep the secret: it is not shown again."


@dataclass(frozen=True, slots=True)
class WebhookOwner:
    """The caller: an agent, limited to its own webhooks, or an operator."""

    agent: str | None
    actor: str
    key: str | None = None


class WebhookDoor:
    def __init__(
        self,
        *,
        database: Database,
        authenticator: Authenticator,
        subscriptions: Subscriptions,
        audience: Audience,
        sealer: Sealer,
        target_fault: TargetFault,
        clock: Clock,
        mint: Mint,
        posts: Rates,
    ) -> None:
        """Takes its collaborators; `posts` limits the rate at which one owner causes posts to URLs not proven yet."""
        self._database = database
        self._authenticator = authenticator
        self._subscriptions = subscriptions
        self._audience = audience
        self._sealer = sealer
        self._target_fault = target_fault
        self._clock = clock
        self._mint = mint
        self._posts = posts

    def routes(self) -> list[Route]:
        one = "/v1/webhooks/{webhook}"
        return [
            Route("POST", "/v1/webhooks", self.add, ROLES, ADD),
            Route("GET", "/v1/webhooks", self.list, ROLES, FIND),
            Route("GET", one, self.show, ROLES, SHOW),
            Route("PATCH", one, self.change, ROLES, CHANGE),
            Route("DELETE", one, self.remove, ROLES, REMOVE),
            Route("POST", f"{one}/challenge", self.challenge, ROLES, CHALLENGE),
            Route("POST", f"{one}/test", self.test, ROLES, TEST),
            Route("POST", f"{one}/rotate", self.rotate, ROLES, ROTATE),
            Route("POST", f"{one}/replay", self.replay, ROLES, REPLAY),
            Route("GET", f"{one}/attempts", self.attempts, ROLES, ATTEMPTS),
        ]

    async def add(self, request: Request) -> Answer:
        holder = await self._holder(request)
        said, stated = read_new(await request.json_body(BODY_BYTES_MAX), self._target_fault)
        self._posts.take(holder.actor)
        secret = said.secret or mint_secret()
        number, challenge = self._mint(), _new_challenge()
        new = NewSubscription(
            id=number,
            owner=_owner(holder, said.owner),
            url=stated.url or "",
            events=stated.events or (),
            about=stated.about or (),
            description=stated.description,
            challenge=challenge,
            secret=self._sealer.seal(secret),
            key=holder.key,
        )
        webhook = await self._subscriptions.add(new, self._challenge(challenge, number), holder.actor)
        self._audience.stirred.set()
        shown = render_webhook(webhook, secret=None if said.secret else secret)
        told = PENDING if said.secret else f"{PENDING} {KEEP}"
        return answer_json({"webhook": shown, "message": f"Webhook added. {told}"}, 201)

    async def list(self, request: Request) -> Answer:
        holder = await self._holder(request)
        own, limit = holder.agent, limit_of(request.query)
        if own is None and "owner" in request.query:
            own = parse_address(request.query["owner"], "owner").name
        found = await self._subscriptions.all(own, cursor_of(request.query), limit + 1)
        shown = found[:limit]
        return answer_json(
            {
                "webhooks": [render_webhook(webhook) for webhook in shown],
                "count": len(shown),
                "has_more": len(found) > limit,
                "cursor": str(shown[-1].id) if len(found) > limit else None,
            }
        )

    async def show(self, request: Request) -> Answer:
        webhook = await self._one(request, await self._holder(request))
        waiting = await notices.waiting(self._database, webhook.id)
        return answer_json({"webhook": render_webhook(webhook, waiting=waiting)})

    async def change(self, request: Request) -> Answer:
        holder = await self._holder(request)
        said, stated = read_change(await request.json_body(BODY_BYTES_MAX), self._target_fault)
        before = await self._one(request, holder)
        moved = stated.url is not None and stated.url != before.url
        asks = moved or (said.enabled is True and before.proven_at is None)
        if asks:
            self._posts.take(holder.actor)
        challenge = _new_challenge() if asks else None
        change = Change(
            url=stated.url if moved else None,
            challenge=challenge,
            events=stated.events,
            about=stated.about,
            description=stated.description,
            enabled=said.enabled,
        )
        body = None if challenge is None else self._challenge(challenge, before.id)
        webhook = await self._changed(holder, before, change, body)
        told = f"Webhook changed. {PENDING}" if asks else "Webhook changed."
        return answer_json({"webhook": render_webhook(webhook), "message": told})

    async def remove(self, request: Request) -> Answer:
        holder = await self._holder(request)
        number = read_webhook_id(request.params["webhook"])
        await self._subscriptions.remove(number, holder.agent, holder.actor)
        await self._audience.look()
        return answer_json({"webhook_id": str(number), "message": "Webhook removed."})

    async def challenge(self, request: Request) -> Answer:
        """Sends the target another challenge."""
        holder = await self._holder(request)
        before = await self._one(request, holder)
        if before.status != "pending":
            raise AMTPError(Code.CONFLICT, "Its target has answered: there is nothing to challenge.")
        await self._let_rest(before.id)
        self._posts.take(holder.actor)
        challenge = _new_challenge()
        body = self._challenge(challenge, before.id)
        webhook = await self._changed(holder, before, Change(challenge=challenge), body)
        return answer_json({"webhook": render_webhook(webhook), "message": f"Asked again. {PENDING}"}, 202)

    async def test(self, request: Request) -> Answer:
        """Queues a test event; its result is shown among the attempts."""
        holder = await self._holder(request)
        webhook = await self._one(request, holder)
        if webhook.status != "active":
            raise AMTPError(Code.CONFLICT, f"The webhook is {webhook.status}: nothing is sent to it.")
        self._posts.take(holder.actor)
        number = self._mint()
        happening = Happening(
            Event.TEST, self._clock.now(), str(number), (), data={"webhook_id": str(webhook.id)}
        )
        async with self._database.transaction() as connection:
            notice = Notice(number, webhook.id, Event.TEST.value, render_event(happening))
            await Notice.write(connection, [notice])
        self._audience.stirred.set()
        return answer_json({"event_id": str(number), "message": "A test event is on its way."}, 202)

    async def rotate(self, request: Request) -> Answer:
        holder = await self._holder(request)
        number = read_webhook_id(request.params["webhook"])
        said = read_secret_change(await _optional_body(request))
        secret = said.secret or mint_secret()
        webhook = await self._subscriptions.rotate(
            number, holder.agent, self._sealer.seal(secret), said.grace_seconds, holder.actor
        )
        shown = render_webhook(webhook, secret=None if said.secret else secret)
        told = "Secret changed." if said.secret else f"Secret rotated. {KEEP}"
        return answer_json({"webhook": shown, "message": told})

    async def replay(self, request: Request) -> Answer:
        holder = await self._holder(request)
        since, event = read_replay(await request.json_body(BODY_BYTES_MAX))
        webhook = await self._one(request, holder)
        replayed = await notices.replay(self._database, webhook.id, since - OVERLAP, event)
        self._audience.stirred.set()
        return answer_json({"replayed": replayed, "has_more": replayed == REPLAYED_MAX}, 202)

    async def attempts(self, request: Request) -> Answer:
        webhook = await self._one(request, await self._holder(request))
        limit = limit_of(request.query)
        before = count_of(request.query, "cursor", 0, 1, NUMBER_MAX) or None
        found = await notices.attempts(self._database, webhook.id, before=before, limit=limit + 1)
        shown = found[:limit]
        return answer_json(
            {
                "attempts": [render_attempt(attempt) for attempt in shown],
                "count": len(shown),
                "has_more": len(found) > limit,
                "cursor": str(shown[-1].number) if len(found) > limit else None,
            }
        )

    async def _holder(self, request: Request) -> WebhookOwner:
        return holder_of(await self._authenticator.caller(request))

    async def _one(self, request: Request, holder: WebhookOwner) -> Subscription:
        number = read_webhook_id(request.params["webhook"])
        return await self._subscriptions.get(number, holder.agent)

    async def _changed(
        self, holder: WebhookOwner, before: Subscription, change: Change, body: bytes | None
    ) -> Subscription:
        webhook = await self._subscriptions.change(before.id, holder.agent, change, body, holder.actor)
        await self._audience.look()
        self._audience.stirred.set()
        return webhook

    async def _let_rest(self, number: UUID) -> None:
        if await notices.challenged_within(self._database, number, CHALLENGE_REST_SECONDS):
            raise AMTPError(
                Code.RATE_LIMIT_EXCEEDED,
                "Its target was challenged just now; see the attempts for how that went.",
                retry_after=CHALLENGE_REST_SECONDS,
            )

    def _challenge(self, challenge: str, number: UUID) -> bytes:
        return render_challenge(challenge, number, self._clock.now())


def holder_of(caller: Caller) -> WebhookOwner:
    require_known(caller)
    if caller.agent is not None:
        return WebhookOwner(caller.agent, caller.agent, caller.key)
    if not caller.development and ADMIN not in caller.scopes:
        raise AMTPError(Code.POLICY_DENIED, "This takes an agent's own key, or an admin key.")
    return WebhookOwner(None, caller.name or "development", caller.key)


def _owner(holder: WebhookOwner, said: str | None) -> str | None:
    """Returns the owner of a new webhook; operators may name an agent."""
    if said is None:
        return holder.agent
    name = parse_address(said, "owner").name
    if holder.agent is not None and holder.agent != name:
        raise AMTPError(
            Code.POLICY_DENIED, "Your key makes webhooks of your own: leave owner out.", {"field": "owner"}
        )
    return name


def _new_challenge() -> str:
    return secrets.token_urlsafe(CHALLENGE_BYTES)


async def _optional_body(request: Request) -> bytes:
    raw = await request.body(BODY_BYTES_MAX)
    if raw:
        request.require_content_type(JSON)
    return raw
