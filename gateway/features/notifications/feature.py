"""The feature of notifications: an interest in what happens, the notifier that tells subscribers, and their endpoints."""

from functools import partial

from gateway.features.feature import Base, Core, Faces, Feature
from gateway.features.notifications import retention as notices_retention
from gateway.features.notifications.audience import Audience
from gateway.features.notifications.door import WebhookDoor
from gateway.features.notifications.escalation import Ladder
from gateway.features.notifications.leaving import WebhookLeaving
from gateway.features.notifications.notifier import Notifier
from gateway.features.notifications.openapi import WORDS
from gateway.features.notifications.subscriptions import Subscriptions
from gateway.features.notifications.target import Target
from gateway.flow.housekeeping import Chore
from gateway.net.rates import Rates


def feature(base: Base) -> Feature:
    runtime = base.runtime
    audience = Audience(runtime.database, runtime.clock)

    def faces(core: Core) -> Faces:
        plain = base.config.outbound.plain_webhooks
        ladder = Ladder(runtime=runtime, audience=audience, postmaster=core.postmaster)
        notifier = Notifier(
            database=runtime.database,
            audience=audience,
            target=Target(core.outbound, core.sealer, runtime.clock, plain=plain),
            ladder=ladder,
            journal=runtime.journal,
        )
        door = WebhookDoor(
            database=runtime.database,
            authenticator=core.authenticator,
            subscriptions=Subscriptions(runtime.database, base.audit),
            audience=audience,
            sealer=core.sealer,
            target_fault=partial(core.outbound.fault, plain=plain),
            clock=runtime.clock,
            mint=runtime.row_ids,
            posts=Rates(
                "posts to URLs of webhooks", lambda: base.config.limits.webhook_challenges_per_minute
            ),
        )

        async def let_go() -> None:
            runtime.journal.notices_given_up(await notices_retention.give_up(runtime.database))

        return Faces(
            doors=(door,),
            words=WORDS,
            chores=(
                Chore("webhooks that fail", 60, ladder.look),
                Chore("notices", 60, let_go),
                Chore("old notices", 600, lambda: notices_retention.forget(runtime.database)),
            ),
            workers=(notifier,),
            watches=(audience.run,),
            prepare=audience.look,
        )

    return Feature(faces, interests=(audience,), leavings=(WebhookLeaving(),))
