"""What each route does, takes and answers, for the interface document. A new route gets its line here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.http.operation import (
    ADMIN_KEY,
    ANYTHING,
    EVENTS,
    JSON,
    LINES,
    MAYBE_KEY,
    NO_KEY,
    Operation,
    json_body,
    ok,
)
from gateway.http.shapes import ref, text
from gateway.journal.metrics import CONTENT_TYPE

MESSAGES, INBOX, AGENTS, DISCOVERY, WATCH = "messages", "inbox", "agents", "discovery", "watch"
ATTACHMENTS = "attachments"
QUEUE, DESTINATIONS, DEAD_LETTERS = "queue", "destinations", "dead letters"

PAGE = ("limit", "offset", "since", "cursor")
BOX = "/v1/inbox/{address}"
FILES = "/v1/attachments"
AGENT = "/v1/admin/agents/{local}"
LETTERS = "/v1/dead-letters"
DESTINATION = "/v1/admin/destinations/{destination}"


def look(tag: str, summary: str, shape: str, *parameters: str) -> Operation:
    """What operators see."""
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


OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("POST", "/v1/messages"): Operation(
        MESSAGES,
        "Hand in a message: 202 once it is committed, 200 with the reply that `Prefer: wait=<seconds>` asks for, or"
        " where best_effort had success; or up to 100 as lines: 200 and a line for each.",
        {202: {JSON: "Receipt"}, 200: {JSON: "Answered", LINES: ""}},
        keys=MAYBE_KEY,
        refusals=(403, 404, 409),
        body={JSON: "Message", LINES: ""},
    ),
    ("GET", "/v1/messages"): Operation(
        MESSAGES,
        "Messages, newest first: what you sent, or with `recipient` what you received; to operators, all.",
        ok("StatusList"),
        refusals=(403,),
        parameters=("message_status", "sender", "recipient", *PAGE),
    ),
    ("GET", "/v1/messages/{id}"): Operation(
        MESSAGES,
        "What became of a message, and its envelope.",
        ok("MessageStatus"),
        parameters=("sender", "row"),
    ),
    ("GET", "/v1/messages/{id}/status"): Operation(
        MESSAGES, "What became of a message.", ok("Status"), parameters=("sender", "row")
    ),
    ("DELETE", "/v1/messages/{id}"): Operation(
        MESSAGES,
        "Cancel what is queued, scheduled or held.",
        ok("Status"),
        refusals=(403, 409),
        parameters=("sender", "row"),
    ),
    ("POST", FILES): Operation(
        ATTACHMENTS,
        "Upload a file, of the type its header tells; the answer is what a message lists as attachment.",
        ok("MessageAttachment", 201),
        refusals=(403,),
        parameters=("filename",),
        body={ANYTHING: ""},
        body_required=False,
    ),
    ("GET", f"{FILES}/{{token}}"): Operation(
        ATTACHMENTS, "An uploaded file, for whoever knows its URL.", {200: {ANYTHING: ""}}, keys=NO_KEY
    ),
    ("GET", "/v1/messages/{id}/attachments/{n}"): Operation(
        ATTACHMENTS,
        "An attachment of a message, fetched from where it lies and proven.",
        {200: {ANYTHING: ""}},
        refusals=(403, 409, 413),
        parameters=("sender", "row", "content_reason"),
    ),
    ("GET", BOX): Operation(
        INBOX,
        "What lies in an inbox, oldest first; fetching marks it read. As an event stream, what comes too.",
        {200: {JSON: "InboxPage", EVENTS: ""}},
        refusals=(403,),
        parameters=(*PAGE, "inbox_status", "wait", "lease_seconds"),
    ),
    ("DELETE", f"{BOX}/{{id}}"): Operation(
        INBOX,
        "Acknowledge a message, which is not handed out again; what goes with it is sent in the same act.",
        ok("Acknowledged"),
        refusals=(403, 409),
        parameters=("sender", "lease_token"),
        body=json_body("Answer"),
        body_required=False,
    ),
    ("POST", f"{BOX}/ack"): Operation(
        INBOX,
        "Acknowledge many; each has its own result.",
        ok("AcknowledgementResults"),
        refusals=(403,),
        body=json_body("Acknowledgements"),
    ),
    ("POST", f"{BOX}/lease"): Operation(
        INBOX,
        "Let a lease end later, or now.",
        ok("LeaseHeld"),
        refusals=(403, 409),
        body=json_body("LeaseChange"),
    ),
    ("POST", f"{BOX}/purge"): Operation(
        INBOX,
        "Let go of what nobody wants to read; for its agent and for operators, audited.",
        ok("InboxPurged"),
        refusals=(403,),
        body=json_body("Purge"),
    ),
    ("GET", f"{BOX}/dead-letters"): Operation(
        INBOX,
        "What the agent took too often and never acknowledged.",
        ok("OwnDeadLetters"),
        refusals=(403,),
        parameters=("limit", "number_cursor"),
    ),
    ("POST", f"{BOX}/dead-letters/{{number}}/replay"): Operation(
        INBOX, "Put one back into the inbox.", ok("OwnDeadLetter"), refusals=(403,)
    ),
    ("DELETE", f"{BOX}/dead-letters/{{number}}"): Operation(
        INBOX, "Let go of one.", ok("OwnDeadLetter"), refusals=(403,)
    ),
    ("POST", "/v1/admin/agents"): Operation(
        AGENTS,
        "Register an agent, or bring a retired one back.",
        ok("AgentAnswer", 201),
        keys=ADMIN_KEY,
        refusals=(403, 409),
        body=json_body("NewAgent"),
    ),
    ("GET", "/v1/admin/agents"): Operation(
        AGENTS,
        "Agents by name.",
        ok("AgentList"),
        keys=ADMIN_KEY,
        refusals=(403, 404),
        parameters=("limit", "name_cursor", "domain", "state", "delivery_mode", "schema", "q"),
    ),
    ("GET", AGENT): Operation(AGENTS, "An agent.", ok("AgentAnswer"), keys=ADMIN_KEY, refusals=(403,)),
    ("PATCH", AGENT): Operation(
        AGENTS,
        "Change what is said of an agent; null takes a detail away.",
        ok("AgentAnswer"),
        keys=ADMIN_KEY,
        refusals=(403, 409),
        body=json_body("AgentChange"),
    ),
    ("DELETE", AGENT): Operation(
        AGENTS,
        "Retire an agent: its keys die, its inbox stays. With `mail` it is removed for good.",
        ok("AgentAnswer"),
        keys=ADMIN_KEY,
        refusals=(403,),
        parameters=("mail",),
    ),
    ("POST", f"{AGENT}/rotate-key"): Operation(
        AGENTS,
        "A new key for an agent; the old one lives on for a grace period.",
        ok("AgentAnswer"),
        keys=ADMIN_KEY,
        refusals=(403, 409),
        body=json_body("KeyRotation"),
        body_required=False,
    ),
    ("POST", f"{AGENT}/rotate-push-secret"): Operation(
        AGENTS,
        "A new secret that what is pushed to the agent is signed with, beside the old one for a grace period.",
        ok("AgentAnswer"),
        keys=ADMIN_KEY,
        refusals=(403, 409),
        body=json_body("SecretRotation"),
        body_required=False,
    ),
    ("GET", "/v1/admin/queue"): look(
        QUEUE,
        "What waits, oldest first, and why.",
        "QueuePage",
        *("sender", "recipient", "destination", "live_status", "code", "older_than"),
        *("limit", "queue_cursor"),
    ),
    ("GET", "/v1/admin/queue/{id}"): look(
        QUEUE,
        "What waits of one message, with the history of its attempts.",
        *("QueuePage", "limit", "queue_cursor"),
    ),
    ("GET", "/v1/admin/queue/shape"): look(
        QUEUE, "How much waits, by age and destination.", "QueueShape", "top"
    ),
    ("POST", "/v1/admin/queue/hold"): queue_act("Keep what is chosen from being delivered."),
    ("POST", "/v1/admin/queue/release"): queue_act("Let what is held go on."),
    ("POST", "/v1/admin/queue/retry"): queue_act("Try what failed before now."),
    ("POST", "/v1/admin/queue/cancel"): queue_act("End what is chosen, and report it to the senders."),
    ("GET", "/v1/admin/peers"): look(
        DESTINATIONS, "Gateways of other domains that are known, by name.", "Peers", "limit", "name_cursor"
    ),
    ("GET", "/v1/admin/peers/{domain}"): look(
        DESTINATIONS, "What a domain's gateway publishes, how it is, and when it was in touch.", "Peer"
    ),
    ("GET", "/v1/admin/destinations"): look(
        DESTINATIONS,
        "Where mail waits for, and what is known of it, by name.",
        *("Destinations", "limit", "name_cursor"),
    ),
    ("GET", f"{DESTINATION}/explain"): look(
        DESTINATIONS, "Why what waits for it is not delivered right now.", "Explanation"
    ),
    ("POST", f"{DESTINATION}/pause"): destination_act("Begin no more deliveries there.", "Pause"),
    ("POST", f"{DESTINATION}/resume"): destination_act("End a pause."),
    ("POST", f"{DESTINATION}/flush"): destination_act("Make due what failed before."),
    ("POST", f"{DESTINATION}/reset"): destination_act("Close its breaker."),
    ("GET", LETTERS): Operation(
        DEAD_LETTERS,
        "What could not be delivered, newest first: of what you sent; to operators, all.",
        ok("DeadLetters"),
        refusals=(403,),
        parameters=(
            *("sender", "recipient", "recipient_domain", "code", "older_than", "younger_than"),
            *("limit", "number_cursor"),
        ),
    ),
    ("GET", f"{LETTERS}/{{number}}"): Operation(
        DEAD_LETTERS,
        "A dead letter and its message; to operators its envelope, or all of it with a reason.",
        ok("DeadLetterShown"),
        refusals=(403,),
        parameters=("content_reason",),
    ),
    ("DELETE", f"{LETTERS}/{{number}}"): Operation(
        DEAD_LETTERS, "Let go of one.", ok("DeadLetterEnded"), keys=ADMIN_KEY, refusals=(403, 409)
    ),
    ("POST", f"{LETTERS}/{{number}}/replay"): Operation(
        DEAD_LETTERS,
        "Put one back into the queue, under its ids.",
        ok("DeadLetterReplayed"),
        keys=ADMIN_KEY,
        refusals=(403, 409),
    ),
    ("POST", f"{LETTERS}/replay"): Operation(
        DEAD_LETTERS,
        "Put what is chosen back into the queue, the oldest first, at a rate.",
        ok("DeadLettersReplayed"),
        keys=ADMIN_KEY,
        refusals=(403,),
        body=json_body("ReplayedLetters"),
    ),
    ("POST", f"{LETTERS}/purge"): Operation(
        DEAD_LETTERS,
        "Let go of what is chosen, the oldest first.",
        ok("DeadLettersPurged"),
        keys=ADMIN_KEY,
        refusals=(403,),
        body=json_body("ChosenLetters"),
    ),
    ("GET", "/v1/discovery/agents"): Operation(
        DISCOVERY,
        "Agents that want to be found.",
        ok("DiscoveredAgents"),
        refusals=(404,),
        parameters=("limit", "name_cursor", "domain", "delivery_mode", "schema", "q", "active_only"),
    ),
    ("GET", "/v1/discovery/agents/{domain}"): Operation(
        DISCOVERY,
        "Agents of one domain that want to be found.",
        ok("DiscoveredAgents"),
        parameters=("limit", "name_cursor", "delivery_mode", "schema", "q", "active_only"),
    ),
    ("GET", "/v1/capabilities/{domain}"): Operation(
        DISCOVERY, "What a domain's gateway can do, as it says in the DNS.", ok("Capabilities")
    ),
    ("GET", "/health"): Operation(WATCH, "Whether the process lives.", ok("Health"), keys=NO_KEY),
    ("GET", "/ready"): Operation(
        WATCH, "Whether it may be sent work; why not, on listeners for operators.", ok("Ready"), keys=NO_KEY
    ),
    ("GET", "/metrics"): Operation(WATCH, "Counters for Prometheus.", {200: {CONTENT_TYPE: ""}}, keys=NO_KEY),
    ("GET", "/openapi.json"): Operation(WATCH, "This document.", {200: {JSON: ""}}, keys=NO_KEY),
}

ADDRESS = text("`alice@example.com`.", maxLength=318)
DOMAIN = text("`example.com`.", maxLength=253)

# The parts of paths, by the name in their template.
PATH_PARTS: Mapping[str, dict[str, Any]] = {
    "id": text("The public id of a message.", pattern="^[A-Za-z0-9._:-]{1,128}$"),
    "address": ADDRESS,
    "local": text("`alice`, or the whole address where the gateway serves several domains.", maxLength=318),
    "domain": DOMAIN,
    "token": text("What makes the URL of an upload unguessable.", pattern="^[A-Za-z0-9_-]{43}$"),
    "n": text("Its place in the list, from 0.", pattern="^[0-9]{1,3}$"),
    "number": text("The number of a dead letter.", pattern="^[0-9]{1,18}$"),
    "destination": text("A domain, or the address of an agent here.", maxLength=330),
    "webhook": text("The id of a webhook.", format="uuid"),
}

SECONDS = {"type": "number", "minimum": 0}
AGE = {"type": "integer", "minimum": 0, "maximum": 100_000_000}


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    schema: dict[str, Any]
    description: str


# The parameters behind the question mark. Some names mean different things at different places.
PARAMETERS: Mapping[str, Parameter] = {
    "message_status": Parameter(
        "status",
        {"enum": ["queued", "pending", "delivered", "failed", "partial"]},
        "Only messages of this status; pending means queued.",
    ),
    "filename": Parameter(
        "filename", text(minLength=1, maxLength=255), "Its name, without folders: `attachment`."
    ),
    "live_status": Parameter("status", {"enum": ["queued", "held"]}, "Only what waits in this state."),
    "destination": Parameter(
        "destination", text(maxLength=330), "Only for this domain, or this agent of ours."
    ),
    "recipient_domain": Parameter("domain", DOMAIN, "Only to recipients of this domain."),
    "code": Parameter("code", ref("Code"), "Only with this error code."),
    "older_than": Parameter("older_than", AGE, "Only what waits, or is dead, for more seconds."),
    "younger_than": Parameter("younger_than", AGE, "Only what is dead for fewer seconds."),
    "top": Parameter(
        "top", {"type": "integer", "minimum": 1, "maximum": 1000}, "Destinations that are named: 20."
    ),
    "queue_cursor": Parameter("cursor", text(maxLength=360), "As the page before gave it."),
    "inbox_status": Parameter("status", {"enum": ["unread", "read"]}, "Only unread or only read ones."),
    "sender": Parameter(
        "sender", ADDRESS, "Only from this sender; chooses where several messages share an id."
    ),
    "row": Parameter(
        "row", text(format="uuid"), "Chooses where several messages share an id, as an operator is told."
    ),
    "recipient": Parameter("recipient", ADDRESS, "Only to this recipient."),
    "limit": Parameter("limit", {"type": "integer", "minimum": 1, "maximum": 1000}, "Items on a page: 100."),
    "offset": Parameter(
        "offset",
        {"type": "integer", "minimum": 0, "maximum": 10_000},
        "Items to skip; `cursor` goes further.",
    ),
    "since": Parameter("since", text(format="date-time"), "Only what was accepted then or later."),
    "cursor": Parameter("cursor", text(format="uuid"), "As the page before gave it."),
    "owner": Parameter("owner", ADDRESS, "Only those of this agent."),
    "number_cursor": Parameter("cursor", text(pattern="^[0-9]{1,18}$"), "As the page before gave it."),
    "name_cursor": Parameter("cursor", text(minLength=1, maxLength=256), "As the page before gave it."),
    "wait": Parameter("wait", SECONDS, "Seconds to wait for something to come."),
    "lease_seconds": Parameter("lease", SECONDS, "Seconds for which what is handed out is yours alone."),
    "content_reason": Parameter(
        "reason", text(), "An operator's: why the content is looked at. It stands in the audit."
    ),
    "lease_token": Parameter("lease", text(format="uuid"), "The token under which it is held."),
    "domain": Parameter("domain", DOMAIN, "Only agents of this domain."),
    "state": Parameter("state", {"enum": ["active", "retired"]}, "Only agents in this state."),
    "delivery_mode": Parameter("delivery_mode", {"enum": ["pull", "push"]}, "Only agents of this mode."),
    "schema": Parameter("schema", text(minLength=1, maxLength=256), "Only agents that support it."),
    "q": Parameter("q", text(minLength=1, maxLength=256), "Words in the name or the description."),
    "active_only": Parameter("active_only", {"enum": ["true", "false"]}, "Only agents seen of late."),
    "mail": Parameter(
        "mail", {"enum": ["return", "drop"]}, "Remove the agent; what becomes of its open mail."
    ),
}
