"""The shapes of bodies, by their names in the OpenAPI document."""

import json
from importlib.resources import files

from gateway.http.shapes import (
    ANY_OBJECT,
    COUNT,
    CURSOR,
    MOMENT,
    PAGE,
    PROBLEM,
    TEXT,
    YES_NO,
    Shape,
    listed,
    nullable,
    ref,
    shape,
    text,
)
from gateway.protocol.errors import Code
from gateway.protocol.status import Status

MESSAGE_STATUS = {"enum": ["queued", "delivered", "failed", "partial"]}
RECIPIENT_STATUS = {"enum": [status.value for status in Status]}

RECEIVED = shape({"address": TEXT, "status": RECIPIENT_STATUS}, {"error": PROBLEM})

STATUS = {
    "message_id": TEXT,
    "sender": TEXT,
    "status": MESSAGE_STATUS,
    "created_at": MOMENT,
    "delivered_at": nullable(MOMENT),
    "attempts": COUNT,
    "next_retry": nullable(MOMENT),
    "recipients": listed(ref("RecipientStatus")),
}
TO_OPERATORS = {
    "row": text("Identifies this message among several with the same id."),
    "others": listed(ref("Namesake")),
}
LEASE = shape({"token": TEXT, "until": MOMENT})

DESCRIBED = {
    "delivery_mode": nullable({"enum": ["pull", "push"]}),
    "push_target": nullable(text("An https URL.", maxLength=2048)),
    "push_secret": nullable(text("Your own; by default a new one is generated.")),
    "description": nullable(text(maxLength=1000)),
    "capabilities": nullable({**listed(text(minLength=1, maxLength=256)), "maxItems": 100}),
    "supported_schemas": nullable({**listed(text(minLength=1, maxLength=256)), "maxItems": 100}),
    "hidden": nullable(YES_NO),
}
PUBLIC_AGENT = {
    "description": TEXT,
    "capabilities": listed(TEXT),
    "supported_schemas": listed(TEXT),
    "created_at": MOMENT,
    "last_active": MOMENT,
}
AGENT_KEYS = {"address": TEXT, "delivery_mode": {"enum": ["pull", "push"]}}

# What is sent in the act of acknowledging, and what is told of it.
ANSWER = {
    "reply": {"anyOf": [ref("Reply"), {"type": "null"}]},
    "messages": {**listed(ref("Message")), "maxItems": 100},
}
ANSWERED = {
    "again": {**YES_NO, "description": "It was acknowledged before, and nothing more was sent."},
    "sent": {**listed(TEXT), "description": "The ids of what the first acknowledgement sent."},
}

WARNINGS = {
    **listed(shape({"field": TEXT, "nearest": TEXT})),
    "description": "Unknown members of the message that look like misspelt known ones.",
}

SHAPES: dict[str, Shape] = {
    "Code": {"enum": [code.value for code in Code]},
    "Error": shape(
        {
            "error": shape(
                {"code": ref("Code"), "message": TEXT, "timestamp": MOMENT, "request_id": TEXT},
                {"details": ANY_OBJECT},
            )
        },
        {"recipients": listed(RECEIVED), "message_id": TEXT},
        "Every error. With a `message_id` delivery was attempted and failed for all recipients.",
    ),
    "Acceptance": shape(
        {"message_id": TEXT, "status": MESSAGE_STATUS, "recipients": listed(RECEIVED)},
        {
            "schedule": shape(
                {"id": TEXT, "repeat": TEXT, "next_at": nullable(MOMENT), "ends_at": nullable(MOMENT)},
                description="The schedule of a repeated message.",
            ),
            "warnings": WARNINGS,
        },
        description="The receipt of a committed message, with the status of each recipient so far.",
    ),
    "Answered": shape(
        {"message_id": TEXT, "status": MESSAGE_STATUS, "recipients": listed(RECEIVED)},
        {"reply": ref("InboxItem"), "warnings": WARNINGS},
        "The receipt with the reply that was waited for, or with the outcome of the delivery.",
    ),
    "RecipientStatus": shape(
        {
            "address": TEXT,
            "status": RECIPIENT_STATUS,
            "timestamp": nullable(MOMENT),
            "attempts": COUNT,
            "delivered_at": nullable(MOMENT),
            "next_retry": nullable(MOMENT),
            "last_error": nullable(TEXT),
            "via": nullable(text("What has it now: inbox, webhook, amtp:<host>, smtp:<host>.")),
        },
        {"error": PROBLEM},
    ),
    "Status": shape(STATUS, TO_OPERATORS),
    "MessageStatus": shape(
        {**STATUS, "message": {**ANY_OBJECT, "description": "Its envelope, without the payload."}},
        TO_OPERATORS,
    ),
    "Namesake": shape(
        {
            "row": TEXT,
            "sender": TEXT,
            "proven": YES_NO,
            "accepted_at": MOMENT,
            "status": {"enum": ["queued", "delivered", "failed", "partial"]},
        }
    ),
    "StatusList": shape(
        {"messages": listed(ref("Status")), "message_count": COUNT, **PAGE, "cursor": CURSOR}
    ),
    "InboxItem": shape(
        {
            "message_id": TEXT,
            "sender": TEXT,
            "recipients": listed(TEXT),
            "payload": {},
            "status": {"enum": ["unread", "read"]},
            "gateway": ANY_OBJECT,
        },
        {"sender_verification": {"enum": ["pass", "fail", "none", "temperror", "permerror"]}},
        "The message as it was received, with what the gateway knows about it in `gateway`.",
    ),
    "InboxPage": shape(
        {
            "messages": listed(ref("InboxItem")),
            "message_count": COUNT,
            "recipient": TEXT,
            **PAGE,
            "cursor": CURSOR,
        },
        {"unread": COUNT, "unread_more": YES_NO, "lease": LEASE},
    ),
    "Acknowledged": shape(
        {"message_id": TEXT, "status": {"enum": ["acknowledged"]}, "timestamp": MOMENT, "sender": TEXT},
        ANSWERED,
    ),
    "Answer": {**shape({}, ANSWER), "additionalProperties": False},
    "Reply": {
        **shape(
            {},
            {
                "payload": {},
                **{name: nullable(TEXT) for name in ("subject", "schema", "response_type", "workflow_id")},
                "attachments": {"anyOf": [listed(ref("MessageAttachment")), {"type": "null"}]},
                "headers": {"anyOf": [ANY_OBJECT, {"type": "null"}]},
            },
            "A reply, to the message's reply-to or its sender.",
        ),
        "additionalProperties": False,
    },
    "Acknowledgements": {
        **shape(
            {
                "message_ids": {
                    **listed({"anyOf": [TEXT, ref("NamedMessage")]}),
                    "minItems": 1,
                    "maxItems": 1000,
                }
            },
            {"lease": nullable(text("The token under which they are held.", format="uuid"))},
        ),
        "additionalProperties": False,
    },
    "NamedMessage": {
        **shape({"message_id": TEXT}, {"sender": nullable(TEXT), **ANSWER}),
        "additionalProperties": False,
    },
    "AcknowledgementResults": shape(
        {
            "acknowledged": COUNT,
            "results": listed(
                shape(
                    {"message_id": TEXT, "status": {"enum": ["acknowledged", "failed"]}},
                    {"timestamp": MOMENT, "sender": TEXT, "error": PROBLEM, **ANSWERED},
                )
            ),
        }
    ),
    "LeaseChange": {
        **shape(
            {
                "lease": text("The token of the lease.", format="uuid"),
                "seconds": {"type": "number", "minimum": 0, "description": "0 gives it back."},
            }
        ),
        "additionalProperties": False,
    },
    "LeaseHeld": shape({"lease": TEXT, "seconds": {"type": "number"}, "message_count": COUNT}),
    "Purge": {
        **shape(
            {}, {"older_than": COUNT, "sender": TEXT, "unproven": YES_NO, "all": YES_NO, "dry_run": YES_NO}
        ),
        "additionalProperties": False,
    },
    "InboxPurged": shape(
        {"recipient": TEXT, "dry_run": YES_NO, "matched": COUNT, "purged": COUNT, "has_more": YES_NO}
    ),
    "OwnDeadLetters": shape({"dead_letters": listed(ANY_OBJECT), **PAGE, "cursor": CURSOR}),
    "OwnDeadLetter": shape(
        {"dead_letter": COUNT, "status": {"enum": ["replayed", "deleted"]}, "timestamp": MOMENT}
    ),
    "NewAgent": {
        **shape({"address": text("`alice` or `alice@example.com`.", maxLength=318)}, DESCRIBED),
        "additionalProperties": False,
    },
    "AgentChange": {**shape({}, DESCRIBED), "additionalProperties": False},
    "KeyRotation": {
        **shape(
            {},
            {
                "grace_seconds": {"type": "integer", "minimum": 0, "maximum": 2_592_000},
                "drop": {"type": "boolean"},
            },
        ),
        "additionalProperties": False,
    },
    "SecretRotation": {
        **shape(
            {},
            {
                "grace_seconds": {"type": "integer", "minimum": 0, "maximum": 2_592_000},
                "push_secret": nullable(text("Your own; by default a new one is generated.")),
            },
        ),
        "additionalProperties": False,
    },
    "Agent": shape(
        {**AGENT_KEYS, "state": {"enum": ["active", "retired", "removed"]}},
        {
            **PUBLIC_AGENT,
            "hidden": YES_NO,
            "push_target": TEXT,
            "retired_at": MOMENT,
            "keys": listed(ANY_OBJECT),
            "api_key": text("Shown only once."),
            "push_secret": text("Shown only once."),
        },
    ),
    "AgentAnswer": shape(
        {"agent": ref("Agent")},
        {
            "message": TEXT,
            "previous_key_ends_at": MOMENT,
            "previous_secret_ends_at": MOMENT,
            "made_before": ANY_OBJECT,
            "brought_back": ANY_OBJECT,
        },
    ),
    "AgentList": shape({"agents": listed(ref("Agent")), **PAGE}, {"cursor": TEXT}),
    "DiscoveredAgents": shape(
        {
            "agents": listed(shape(AGENT_KEYS, PUBLIC_AGENT)),
            "agent_count": COUNT,
            "has_more": YES_NO,
            "domain": nullable(
                text("The domain of these agents; null if the gateway serves several and all are listed.")
            ),
            "timestamp": MOMENT,
        },
        {"cursor": TEXT},
    ),
    "Capabilities": shape(
        {
            "domain": TEXT,
            "version": TEXT,
            "gateway": TEXT,
            "auth": listed(TEXT),
            "max_size": COUNT,
            "features": listed(TEXT),
            "record": TEXT,
            "warnings": listed(TEXT),
            "stale": YES_NO,
            "discovered_at": nullable(MOMENT),
            "expires_at": nullable(MOMENT),
        }
    ),
    "Health": shape(
        {
            "status": {"const": "healthy"},
            "healthy": {"const": True},
            "version": TEXT,
            "protocol": TEXT,
            "timestamp": MOMENT,
        }
    ),
    "Ready": shape({"status": {"const": "ready"}, "ready": {"const": True}}),
}


def message_shapes() -> dict[str, Shape]:
    """Returns the shapes of a message from its JSON Schema, its parts under names of their own."""
    text_ = files("gateway.protocol").joinpath("message.schema.json").read_text()
    schema = json.loads(text_, object_hook=_moved)
    parts = {_part(name): part for name, part in schema.pop("$defs").items()}
    for name in ("$schema", "$id"):
        del schema[name]
    # An agent of ours may leave out what the gateway gives: version and payload.
    return parts | {"Message": schema | {"required": ["sender", "recipients"]}}


def _moved(found: Shape) -> Shape:
    place = found.get("$ref", "")
    if place.startswith("#/$defs/"):
        return found | ref(_part(place.removeprefix("#/$defs/")))
    return found


def _part(name: str) -> str:
    return f"Message{name.capitalize()}"
