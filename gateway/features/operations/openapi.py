"""The shapes of what operators see and do: the queue, destinations, dead letters."""

from gateway.http.operation import Words
from gateway.http.shapes import (
    ANY_OBJECT,
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


def closed(optional: Shape, description: str = "") -> Shape:
    """Returns the shape of an object with these members and no others, none of them required."""
    return {**shape({}, optional, description), "additionalProperties": False}


QUEUED = {
    "message_id": TEXT,
    "sender": TEXT,
    "recipient": TEXT,
}
AGES = {"count": COUNT, "by_age": ANY_OBJECT}
DELIVERY = {
    **QUEUED,
    "row": text("Names this message alone, where several share the id."),
    "destination": TEXT,
    "status": {"enum": ["queued", "held"]},
    "under_way": YES_NO,
    "reason": text("Why it is not delivered yet."),
    "attempts": COUNT,
    "accepted_at": MOMENT,
    "expires_at": MOMENT,
    "first_attempt": nullable(MOMENT),
    "last_attempt": nullable(MOMENT),
    "next_attempt": nullable(MOMENT),
    "last_code": nullable(ref("Code")),
    "last_error": nullable(TEXT),
}
DESTINATION = {
    **dict.fromkeys(("queued", "held", "under_way", "due", "scheduled", "failures"), COUNT),
    **{
        name: nullable(MOMENT)
        for name in ("oldest", "next_attempt", "last_attempt", "open_until", "last_failure", "last_success")
    },
    "destination": TEXT,
    "state": {
        "enum": ["paused", "failing", "delivering", "waiting", "idle"],
        "description": "failing: it is tried again at `open_until`; waiting: for the next attempt of what waits.",
    },
    "last_error": nullable(TEXT),
    "paused": nullable(
        shape({"since": MOMENT, "by": TEXT, "reason": TEXT, "until": nullable(MOMENT)}),
    ),
}
KNOWN = {
    "window": nullable(shape({"size": COUNT, "active": COUNT, "batch": YES_NO})),
    "directory": nullable(
        shape(
            {
                "told": TEXT,
                "asked_at": nullable(MOMENT),
                "good_until": nullable(MOMENT),
                "stale": YES_NO,
            }
        )
    ),
}
PEER = {
    **{name: form for name, form in DESTINATION.items() if name != "destination"},
    **KNOWN,
    "domain": TEXT,
    "source": {"enum": ["configuration", "dns"]},
    "publishes": nullable(
        shape({"gateway": TEXT, "auth": listed(TEXT), "max_size": COUNT, "features": listed(TEXT)})
    ),
    **{
        name: nullable(MOMENT)
        for name in ("spoke_at", "silent_since", "last_contact", "answered_at", "heard_at")
    },
}
DEAD_LETTER = {
    **QUEUED,
    "dead_letter": COUNT,
    "kind": {"enum": ["undelivered", "undigested"]},
    "failure_code": ref("Code"),
    "failure_reason": TEXT,
    "failure_details": {},
    "attempts": COUNT,
    "first_attempt": nullable(MOMENT),
    "last_attempt": nullable(MOMENT),
    "dlq_timestamp": MOMENT,
    "accepted_at": MOMENT,
    "replayed_at": nullable(MOMENT),
}
ADDRESS = nullable(text("`alice@example.com`.", maxLength=318))
AGE = nullable({"type": "integer", "minimum": 0, "maximum": 100_000_000})
CHOSEN = {
    "ids": nullable({**listed(text(pattern="^[A-Za-z0-9._:-]{1,128}$")), "minItems": 1, "maxItems": 1000}),
    "sender": ADDRESS,
    "recipient": ADDRESS,
    "destination": nullable(text("A domain, or the address of an agent here.", maxLength=330)),
    "status": nullable({"enum": ["queued", "held"]}),
    "code": nullable(ref("Code")),
    "older_than": AGE,
    "all": YES_NO,
    "dry_run": YES_NO,
    "reason": nullable(text("For the audit, and for the reports.", minLength=1, maxLength=500)),
}
CHOSEN_LETTERS = {
    "sender": ADDRESS,
    "recipient": ADDRESS,
    "domain": nullable(text("Of the recipients.", maxLength=253)),
    "code": nullable(ref("Code")),
    "older_than": AGE,
    "younger_than": AGE,
    "all": YES_NO,
    "dry_run": YES_NO,
    "limit": {"type": "integer", "minimum": 1, "maximum": 10_000},
}

OPERATOR_SHAPES: dict[str, Shape] = {
    "Delivery": shape(DELIVERY, {"history": listed(ref("Attempt"))}, "For one recipient, still live."),
    "Attempt": shape(
        {
            "attempt": COUNT,
            "at": MOMENT,
            "via": nullable(TEXT),
            "code": nullable(ref("Code")),
            "error": nullable(TEXT),
            "milliseconds": nullable(COUNT),
        }
    ),
    "QueuePage": shape({"deliveries": listed(ref("Delivery")), **PAGE, "cursor": CURSOR}),
    "QueueShape": shape(
        {
            "ages": listed(TEXT),
            "destinations": listed(shape({"destination": TEXT, **AGES})),
            "others": nullable(shape(AGES)),
            "total": shape(AGES),
        }
    ),
    "Chosen": closed(CHOSEN, "Everything that all of these hold for; of all there is, only with `all`."),
    "QueueEffect": shape(
        {
            "action": {"enum": ["hold", "release", "retry", "cancel"]},
            "dry_run": YES_NO,
            "matched": {**COUNT, "description": "Deliveries that are meant."},
            "busy": {**COUNT, "description": "Of them under way right now: left as they are."},
            "changed": {**COUNT, "description": "Of them changed; in a dry run, that would be."},
            "has_more": YES_NO,
        }
    ),
    "Pause": closed(
        {
            "reason": nullable(text("Why, for whoever asks next.", minLength=1, maxLength=500)),
            "expires_in": nullable({"type": "integer", "minimum": 1, "maximum": 2_592_000}),
        }
    ),
    "Destination": shape(DESTINATION, {"flushed": COUNT}),
    "Destinations": shape({"destinations": listed(ref("Destination")), **PAGE, "cursor": CURSOR}),
    "Explanation": shape({**DESTINATION, **KNOWN, "reasons": listed(TEXT)}),
    "Peer": shape(PEER),
    "Peers": shape({"peers": listed(ref("Peer")), **PAGE, "cursor": CURSOR}),
    "DeadLetter": shape(DEAD_LETTER),
    "DeadLetterShown": shape({**DEAD_LETTER, "original_message": ANY_OBJECT}, {"withheld": TEXT}),
    "DeadLetters": shape({"dead_letters": listed(ref("DeadLetter")), **PAGE, "cursor": CURSOR}),
    "DeadLetterEnded": shape({"dead_letter": COUNT, "status": {"enum": ["purged"]}}),
    "DeadLetterReplayed": shape(
        {
            "dead_letter": COUNT,
            "status": {"enum": ["replayed"]},
            "message_id": TEXT,
            "recipient": TEXT,
            "next_attempt": MOMENT,
            "warnings": listed(TEXT),
        }
    ),
    "ChosenLetters": closed(CHOSEN_LETTERS),
    "ReplayedLetters": closed(
        {**CHOSEN_LETTERS, "per_second": nullable({"type": "number", "minimum": 0.01, "maximum": 10_000})}
    ),
    "DeadLettersReplayed": shape(
        {
            "dry_run": YES_NO,
            "matched": COUNT,
            "replayed": COUNT,
            "has_more": YES_NO,
            "last_attempt_due": nullable(MOMENT),
            "forgotten": {
                **COUNT,
                "description": "Of them so old that a gateway that got them may deliver them twice.",
            },
            "warnings": listed(TEXT),
        }
    ),
    "Purge": closed(
        {"older_than": COUNT, "sender": TEXT, "unproven": YES_NO, "all": YES_NO, "dry_run": YES_NO}
    ),
    "InboxPurged": shape(
        {"recipient": TEXT, "dry_run": YES_NO, "matched": COUNT, "purged": COUNT, "has_more": YES_NO}
    ),
    "DeadLettersPurged": shape({"dry_run": YES_NO, "matched": COUNT, "purged": COUNT, "has_more": YES_NO}),
}

WORDS = Words(shapes=OPERATOR_SHAPES)
