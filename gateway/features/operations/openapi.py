"""The OpenAPI operations and shapes of the queue, destinations, peers and dead letters."""

from collections.abc import Mapping

from gateway.features.operations.queue import Act
from gateway.http.operation import ADMIN_KEY, Operation, Parameter, Words, json_body, ok
from gateway.http.parameters import LIMIT, NAME_CURSOR, NUMBER_CURSOR
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
from gateway.receive.openapi_operations import ADDRESS, CONTENT_REASON, DOMAIN, RECIPIENT, SENDER

QUEUE, DESTINATIONS, DEAD_LETTERS = "queue", "destinations", "dead letters"
DESTINATION_NAME = text("A domain, or the address of an agent here.", maxLength=330)
AGE = {"type": "integer", "minimum": 0, "maximum": 100_000_000}

LIVE_STATUS = Parameter("status", {"enum": ["queued", "held"]}, "Only deliveries in this state.")
OF_DESTINATION = Parameter("destination", text(maxLength=330), "Only to this domain, or this local agent.")
RECIPIENT_DOMAIN = Parameter("domain", DOMAIN, "Only to recipients of this domain.")
CODE = Parameter("code", ref("Code"), "Only with this error code.")
OLDER_THAN = Parameter("older_than", AGE, "Only what has been waiting, or dead, for more seconds.")
YOUNGER_THAN = Parameter("younger_than", AGE, "Only what has been dead for fewer seconds.")
TOP = Parameter(
    "top", {"type": "integer", "minimum": 1, "maximum": 1000}, "Destinations to list; default 20."
)
QUEUE_CURSOR = Parameter("cursor", text(maxLength=360), "As the page before gave it.")


def look(tag: str, summary: str, shape: str, *parameters: Parameter) -> Operation:
    """Returns the operation of an endpoint that shows operators something."""
    return Operation(tag, summary, ok(shape), keys=ADMIN_KEY, refusals=(403,), parameters=parameters)


def queue_act(summary: str) -> Operation:
    return Operation(
        QUEUE, summary, ok("QueueEffect"), keys=ADMIN_KEY, refusals=(403,), body=json_body("Chosen")
    )


def destination_act(summary: str, body: str | None = None) -> Operation:
    return Operation(
        DESTINATIONS,
        summary,
        ok("Destination"),
        keys=ADMIN_KEY,
        refusals=(403,),
        body=None if body is None else json_body(body),
    )


FIND_QUEUED = look(
    QUEUE,
    "List queued deliveries, oldest first, and why they wait.",
    "QueuePage",
    *(SENDER, RECIPIENT, OF_DESTINATION, LIVE_STATUS, CODE, OLDER_THAN),
    *(LIMIT, QUEUE_CURSOR),
)
SHOW_QUEUED = look(
    QUEUE,
    "Show one message's queued deliveries, with their attempts.",
    "QueuePage",
    *(LIMIT, QUEUE_CURSOR),
)
SHOW_QUEUE_SHAPE = look(QUEUE, "Count queued deliveries by age and destination.", "QueueShape", TOP)
ACTS: Mapping[Act, Operation] = {
    Act.HOLD: queue_act("Hold the selected deliveries."),
    Act.RELEASE: queue_act("Release held deliveries."),
    Act.RETRY: queue_act("Retry failed deliveries now."),
    Act.CANCEL: queue_act("Cancel the selected deliveries, and report to the senders."),
}
FIND_PEERS = look(DESTINATIONS, "List known gateways of other domains, by name.", "Peers", LIMIT, NAME_CURSOR)
SHOW_PEER = look(
    DESTINATIONS, "Show what a domain's gateway publishes, its state, and its last contacts.", "Peer"
)
FIND_DESTINATIONS = look(
    DESTINATIONS,
    "List destinations with mail, and their state, by name.",
    "Destinations",
    *(LIMIT, NAME_CURSOR),
)
EXPLAIN = look(
    DESTINATIONS, "Show why a destination's queued mail is not being delivered now.", "Explanation"
)
PAUSE = destination_act("Pause a destination: start no new deliveries to it.", "Pause")
RESUME = destination_act("End the pause of a destination.")
FLUSH = destination_act("Retry a destination's queued mail now.")
RESET = destination_act("Close the breaker of a failing destination.")
FIND_LETTERS = Operation(
    DEAD_LETTERS,
    "List dead letters, newest first: of messages you sent; for operators, all.",
    ok("DeadLetters"),
    refusals=(403,),
    parameters=(
        *(SENDER, RECIPIENT, RECIPIENT_DOMAIN, CODE, OLDER_THAN, YOUNGER_THAN),
        *(LIMIT, NUMBER_CURSOR),
    ),
)
SHOW_LETTER = Operation(
    DEAD_LETTERS,
    "Show a dead letter and its message; to operators only the envelope, unless they give a reason.",
    ok("DeadLetterShown"),
    refusals=(403,),
    parameters=(CONTENT_REASON,),
)
PURGE_LETTER = Operation(
    DEAD_LETTERS, "Delete a dead letter.", ok("DeadLetterEnded"), keys=ADMIN_KEY, refusals=(403, 409)
)
REPLAY_LETTER = Operation(
    DEAD_LETTERS,
    "Put a dead letter back into the queue, with the same ids.",
    ok("DeadLetterReplayed"),
    keys=ADMIN_KEY,
    refusals=(403, 409),
)
REPLAY_LETTERS = Operation(
    DEAD_LETTERS,
    "Put the selected dead letters back into the queue, oldest first, at a limited rate.",
    ok("DeadLettersReplayed"),
    keys=ADMIN_KEY,
    refusals=(403,),
    body=json_body("ReplayedLetters"),
)
PURGE_LETTERS = Operation(
    DEAD_LETTERS,
    "Delete the selected dead letters, oldest first.",
    ok("DeadLettersPurged"),
    keys=ADMIN_KEY,
    refusals=(403,),
    body=json_body("ChosenLetters"),
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
    "row": text("Identifies this message among several with the same id."),
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
        "description": "failing: retried at `open_until`; waiting: for the next attempt.",
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
CHOSEN = {
    "ids": nullable({**listed(text(pattern="^[A-Za-z0-9._:-]{1,128}$")), "minItems": 1, "maxItems": 1000}),
    "sender": nullable(ADDRESS),
    "recipient": nullable(ADDRESS),
    "destination": nullable(DESTINATION_NAME),
    "status": nullable({"enum": ["queued", "held"]}),
    "code": nullable(ref("Code")),
    "older_than": nullable(AGE),
    "all": YES_NO,
    "dry_run": YES_NO,
    "reason": nullable(text("For the audit, and for the reports.", minLength=1, maxLength=500)),
}
CHOSEN_LETTERS = {
    "sender": nullable(ADDRESS),
    "recipient": nullable(ADDRESS),
    "domain": nullable(text("Of the recipients.", maxLength=253)),
    "code": nullable(ref("Code")),
    "older_than": nullable(AGE),
    "younger_than": nullable(AGE),
    "all": YES_NO,
    "dry_run": YES_NO,
    "limit": {"type": "integer", "minimum": 1, "maximum": 10_000},
}

OPERATOR_SHAPES: dict[str, Shape] = {
    "Delivery": shape(
        DELIVERY, {"history": listed(ref("Attempt"))}, "A delivery to one recipient, not finished."
    ),
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
    "Chosen": closed(
        CHOSEN, "The deliveries that match all of these conditions; without conditions, `all` is required."
    ),
    "QueueEffect": shape(
        {
            "action": {"enum": ["hold", "release", "retry", "cancel"]},
            "dry_run": YES_NO,
            "matched": {**COUNT, "description": "Deliveries selected."},
            "busy": {**COUNT, "description": "Of them under way, and left unchanged."},
            "changed": {**COUNT, "description": "Of them changed; in a dry run, those that would be."},
            "has_more": YES_NO,
        }
    ),
    "Pause": closed(
        {
            "reason": nullable(text("The reason, shown with the pause.", minLength=1, maxLength=500)),
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
                "description": "Of them so old that a gateway that accepted them before may deliver them twice.",
            },
            "warnings": listed(TEXT),
        }
    ),
    "DeadLettersPurged": shape({"dry_run": YES_NO, "matched": COUNT, "purged": COUNT, "has_more": YES_NO}),
}

WORDS = Words(OPERATOR_SHAPES, {"destination": DESTINATION_NAME})
