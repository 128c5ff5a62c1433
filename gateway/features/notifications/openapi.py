"""The OpenAPI operations and shapes of webhooks."""

from collections.abc import Mapping

from gateway.features.notifications.events import Event
from gateway.http.operation import Operation, Parameter, Words, json_body, ok
from gateway.http.parameters import ID_CURSOR, LIMIT, NUMBER_CURSOR
from gateway.http.shapes import (
    COUNT,
    CURSOR,
    MOMENT,
    PAGE,
    TEXT,
    YES_NO,
    Shape,
    listed,
    nullable,
    ref,
    shape,
    text,
)
from gateway.receive.openapi_operations import ADDRESS

WEBHOOKS = "webhooks"
OWNER = Parameter("owner", ADDRESS, "Only those of this agent.")


def act(summary: str, answer: Mapping[int, Mapping[str, str]], body: str | None = None) -> Operation:
    return Operation(
        WEBHOOKS, summary, answer, refusals=(403, 409), body=None if body is None else json_body(body)
    )


ADD = Operation(
    WEBHOOKS,
    "Register a webhook; it is pending until it echoes the challenge posted to it.",
    ok("WebhookAnswer", 201),
    refusals=(403, 404, 409),
    body=json_body("NewWebhook"),
)
FIND = Operation(
    WEBHOOKS,
    "List your webhooks; for operators, all.",
    ok("WebhookList"),
    refusals=(403,),
    parameters=(LIMIT, ID_CURSOR, OWNER),
)
SHOW = Operation(
    WEBHOOKS,
    "Show a webhook, its state and the number of waiting events.",
    ok("WebhookAnswer"),
    refusals=(403,),
)
CHANGE = act(
    "Change a webhook, or disable or enable it; another URL is challenged first.",
    ok("WebhookAnswer"),
    "WebhookChange",
)
REMOVE = act("Remove a webhook and its waiting events.", ok("WebhookRemoved"))
CHALLENGE = act("Challenge a webhook again.", ok("WebhookAnswer", 202))
TEST = act("Send a test event.", ok("WebhookTested", 202))
ROTATE = Operation(
    WEBHOOKS,
    "Give a webhook a new secret; events are signed with both for a grace period.",
    ok("WebhookAnswer"),
    refusals=(403,),
    body=json_body("WebhookSecret"),
    body_required=False,
)
REPLAY = act(
    "Send events again, delivered or given up since then, with the same ids.",
    ok("WebhookReplayed", 202),
    "WebhookReplay",
)
ATTEMPTS = Operation(
    WEBHOOKS,
    "List recent attempts, newest first.",
    ok("WebhookAttempts"),
    refusals=(403,),
    parameters=(LIMIT, NUMBER_CURSOR),
)

EVENTS = {
    **listed({"enum": [*(event.value for event in Event if event is not Event.TEST), "*"]}),
    "description": "The events; none, or `*`: all of them.",
}
ABOUT = {
    **listed(text(maxLength=318)),
    "maxItems": 100,
    "description": "Only of messages from or to these addresses and domains.",
}
GRACE = {"type": "integer", "minimum": 0, "maximum": 2_592_000}
URL = text("An https URL.", maxLength=2048)
OWN_SECRET = nullable(text("Your own; by default a new one is generated.", minLength=16))
SAID = {
    "events": nullable(EVENTS),
    "about": nullable(ABOUT),
    "description": nullable(text(maxLength=256)),
}
CLOSED = {"additionalProperties": False}

WEBHOOK_SHAPES: dict[str, Shape] = {
    "NewWebhook": {
        **shape({"url": URL}, {**SAID, "owner": nullable(TEXT), "secret": OWN_SECRET}),
        **CLOSED,
    },
    "WebhookChange": {**shape({}, {"url": nullable(URL), **SAID, "enabled": nullable(YES_NO)}), **CLOSED},
    "WebhookSecret": {**shape({}, {"grace_seconds": GRACE, "secret": OWN_SECRET}), **CLOSED},
    "WebhookReplay": {**shape({"since": MOMENT}, {"event": nullable(TEXT)}), **CLOSED},
    "Webhook": shape(
        {
            "webhook_id": TEXT,
            "url": TEXT,
            "events": listed(TEXT),
            "status": {"enum": ["pending", "active", "disabled"]},
            "created_at": MOMENT,
            "failures": COUNT,
        },
        {
            "owner": TEXT,
            "about": listed(TEXT),
            "description": TEXT,
            "last_error": TEXT,
            "secret": text("Shown only once."),
            "waiting": COUNT,
            **dict.fromkeys(
                (
                    "proven_at",
                    "failing_since",
                    "disabled_at",
                    "last_success",
                    "last_failure",
                    "previous_secret_ends_at",
                ),
                MOMENT,
            ),
        },
    ),
    "WebhookAnswer": shape({"webhook": ref("Webhook")}, {"message": TEXT}),
    "WebhookList": shape({"webhooks": listed(ref("Webhook")), **PAGE, "cursor": CURSOR}),
    "WebhookRemoved": shape({"webhook_id": TEXT, "message": TEXT}),
    "WebhookTested": shape({"event_id": TEXT, "message": TEXT}),
    "WebhookReplayed": shape({"replayed": COUNT, "has_more": YES_NO}),
    "WebhookAttempts": shape(
        {
            "attempts": listed(
                shape(
                    {
                        "event_id": TEXT,
                        "event": TEXT,
                        "attempt": COUNT,
                        "timestamp": MOMENT,
                        "result": {"enum": ["delivered", "failed"]},
                        "status": nullable(COUNT),
                        "error": nullable(TEXT),
                        "milliseconds": COUNT,
                    }
                )
            ),
            **PAGE,
            "cursor": CURSOR,
        }
    ),
}

WORDS = Words(WEBHOOK_SHAPES, {"webhook": text("The id of a webhook.", format="uuid")})
