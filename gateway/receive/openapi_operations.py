"""The OpenAPI operations of the core's endpoints."""

from gateway.http.operation import (
    ADMIN_KEY,
    EVENTS,
    JSON,
    LINES,
    MAYBE_KEY,
    NO_KEY,
    Operation,
    Parameter,
    json_body,
    ok,
)
from gateway.http.parameters import LIMIT, NAME_CURSOR, NUMBER_CURSOR, PAGING
from gateway.http.shapes import Shape, text
from gateway.journal.metrics import CONTENT_TYPE

MESSAGES, INBOX, AGENTS, DISCOVERY, WATCH = "messages", "inbox", "agents", "discovery", "watch"

ADDRESS = text("`alice@example.com`.", maxLength=318)
DOMAIN = text("`example.com`.", maxLength=253)
SECONDS = {"type": "number", "minimum": 0}

# Path parameters, by their name in the template; some are used by features, too.
PATH_PARTS: dict[str, Shape] = {
    "id": text("The public id of a message.", pattern="^[A-Za-z0-9._:-]{1,128}$"),
    "address": ADDRESS,
    "local": text("`alice`, or the whole address where the gateway serves several domains.", maxLength=318),
    "domain": DOMAIN,
    "number": text("The number of a dead letter.", pattern="^[0-9]{1,18}$"),
}

# Query parameters; the first four are used by features, too.
SENDER = Parameter("sender", ADDRESS, "Only from this sender; chooses where several messages share an id.")
RECIPIENT = Parameter("recipient", ADDRESS, "Only to this recipient.")
ROW = Parameter(
    "row", text(format="uuid"), "Chooses where several messages share an id, as an operator is told."
)
CONTENT_REASON = Parameter("reason", text(), "For operators: why the content is read, for the audit.")
MESSAGE_STATUS = Parameter(
    "status",
    {"enum": ["queued", "pending", "delivered", "failed", "partial"]},
    "Only messages of this status; pending means queued.",
)
INBOX_STATUS = Parameter("status", {"enum": ["unread", "read"]}, "Only unread or only read ones.")
WAIT = Parameter("wait", SECONDS, "Seconds to wait for a message.")
LEASE_SECONDS = Parameter("lease", SECONDS, "Seconds to lease the messages to you.")
LEASE_TOKEN = Parameter("lease", text(format="uuid"), "The token of the lease it is held under.")
OF_DOMAIN = Parameter("domain", DOMAIN, "Only agents of this domain.")
AGENT_STATE = Parameter("state", {"enum": ["active", "retired"]}, "Only agents in this state.")
DELIVERY_MODE = Parameter("delivery_mode", {"enum": ["pull", "push"]}, "Only agents of this mode.")
SUPPORTED_SCHEMA = Parameter("schema", text(minLength=1, maxLength=256), "Only agents that support it.")
WORDS_SOUGHT = Parameter("q", text(minLength=1, maxLength=256), "Words in the name or the description.")
ACTIVE_ONLY = Parameter("active_only", {"enum": ["true", "false"]}, "Only recently active agents.")
OPEN_MAIL = Parameter(
    "mail", {"enum": ["return", "drop"]}, "Remove the agent for good, and return or drop its open mail."
)

SEND = Operation(
    MESSAGES,
    "Send a message: 202 once it is committed; 200 with the reply if `Prefer: wait=<seconds>` asks for one, or after"
    " a best_effort delivery. Or a batch of up to 100 lines: 200 and a line for each.",
    {202: {JSON: "Acceptance"}, 200: {JSON: "Answered", LINES: ""}},
    keys=MAYBE_KEY,
    refusals=(403, 404, 409),
    body={JSON: "Message", LINES: ""},
)
LIST_MESSAGES = Operation(
    MESSAGES,
    "List messages, newest first: those you sent, or with `recipient` received; for operators, all.",
    ok("StatusList"),
    refusals=(403,),
    parameters=(MESSAGE_STATUS, SENDER, RECIPIENT, *PAGING),
)
SHOW_MESSAGE = Operation(
    MESSAGES,
    "Show the status of a message, and its envelope.",
    ok("MessageStatus"),
    parameters=(SENDER, ROW),
)
SHOW_STATUS = Operation(MESSAGES, "Show the status of a message.", ok("Status"), parameters=(SENDER, ROW))
CANCEL_MESSAGE = Operation(
    MESSAGES,
    "Cancel a message's queued, scheduled or held deliveries.",
    ok("Status"),
    refusals=(403, 409),
    parameters=(SENDER, ROW),
)
READ_INBOX = Operation(
    INBOX,
    "Read an inbox, oldest first; messages returned count as read. An event stream also sends new messages.",
    {200: {JSON: "InboxPage", EVENTS: ""}},
    refusals=(403,),
    parameters=(*PAGING, INBOX_STATUS, WAIT, LEASE_SECONDS),
)
ACKNOWLEDGE = Operation(
    INBOX,
    "Acknowledge a message, so that it is not returned again; a reply and messages are sent in the same transaction.",
    ok("Acknowledged"),
    refusals=(403, 409),
    parameters=(SENDER, LEASE_TOKEN),
    body=json_body("Answer"),
    body_required=False,
)
ACKNOWLEDGE_MANY = Operation(
    INBOX,
    "Acknowledge several messages; each has its own result.",
    ok("AcknowledgementResults"),
    refusals=(403,),
    body=json_body("Acknowledgements"),
)
CHANGE_LEASE = Operation(
    INBOX,
    "Extend a lease, or end it now.",
    ok("LeaseHeld"),
    refusals=(403, 409),
    body=json_body("LeaseChange"),
)
PURGE_INBOX = Operation(
    INBOX,
    "Remove messages from an inbox; for its agent and for operators, audited.",
    ok("InboxPurged"),
    refusals=(403,),
    body=json_body("Purge"),
)
LIST_OWN_LETTERS = Operation(
    INBOX,
    "List dead letters of an inbox: messages leased too often without an acknowledgement.",
    ok("OwnDeadLetters"),
    refusals=(403,),
    parameters=(LIMIT, NUMBER_CURSOR),
)
REPLAY_OWN_LETTER = Operation(
    INBOX, "Put a dead letter back into the inbox.", ok("OwnDeadLetter"), refusals=(403,)
)
DROP_OWN_LETTER = Operation(INBOX, "Delete a dead letter of an inbox.", ok("OwnDeadLetter"), refusals=(403,))
REGISTER = Operation(
    AGENTS,
    "Register an agent, or bring a retired one back.",
    ok("AgentAnswer", 201),
    keys=ADMIN_KEY,
    refusals=(403, 409),
    body=json_body("NewAgent"),
)
FIND_AGENTS = Operation(
    AGENTS,
    "List agents by name.",
    ok("AgentList"),
    keys=ADMIN_KEY,
    refusals=(403, 404),
    parameters=(LIMIT, NAME_CURSOR, OF_DOMAIN, AGENT_STATE, DELIVERY_MODE, SUPPORTED_SCHEMA, WORDS_SOUGHT),
)
SHOW_AGENT = Operation(AGENTS, "Show an agent.", ok("AgentAnswer"), keys=ADMIN_KEY, refusals=(403,))
CHANGE_AGENT = Operation(
    AGENTS,
    "Change an agent's profile; null removes a detail.",
    ok("AgentAnswer"),
    keys=ADMIN_KEY,
    refusals=(403, 409),
    body=json_body("AgentChange"),
)
RETIRE_AGENT = Operation(
    AGENTS,
    "Retire an agent: its keys end, its inbox stays. With `mail` it is removed for good.",
    ok("AgentAnswer"),
    keys=ADMIN_KEY,
    refusals=(403,),
    parameters=(OPEN_MAIL,),
)
ROTATE_KEY = Operation(
    AGENTS,
    "Give an agent a new key; the old one stays valid for a grace period.",
    ok("AgentAnswer"),
    keys=ADMIN_KEY,
    refusals=(403, 409),
    body=json_body("KeyRotation"),
    body_required=False,
)
ROTATE_PUSH_SECRET = Operation(
    AGENTS,
    "Give a push agent a new secret for signatures; requests are signed with both for a grace period.",
    ok("AgentAnswer"),
    keys=ADMIN_KEY,
    refusals=(403, 409),
    body=json_body("SecretRotation"),
    body_required=False,
)
DISCOVER = Operation(
    DISCOVERY,
    "List agents that are not hidden.",
    ok("DiscoveredAgents"),
    refusals=(404,),
    parameters=(LIMIT, NAME_CURSOR, OF_DOMAIN, DELIVERY_MODE, SUPPORTED_SCHEMA, WORDS_SOUGHT, ACTIVE_ONLY),
)
DISCOVER_OF_DOMAIN = Operation(
    DISCOVERY,
    "List agents of one domain that are not hidden.",
    ok("DiscoveredAgents"),
    parameters=(LIMIT, NAME_CURSOR, DELIVERY_MODE, SUPPORTED_SCHEMA, WORDS_SOUGHT, ACTIVE_ONLY),
)
SHOW_CAPABILITIES = Operation(
    DISCOVERY, "Show the capabilities of a domain's gateway, from the DNS.", ok("Capabilities")
)
HEALTH = Operation(WATCH, "Liveness of the process.", ok("Health"), keys=NO_KEY)
READY = Operation(
    WATCH, "Readiness; the causes are shown on listeners for operators.", ok("Ready"), keys=NO_KEY
)
METRICS = Operation(WATCH, "Metrics for Prometheus.", {200: {CONTENT_TYPE: ""}}, keys=NO_KEY)
