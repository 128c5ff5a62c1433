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
CONTENT_REASON = Parameter(
    "reason", text(), "An operator's: why the content is looked at. It stands in the audit."
)
MESSAGE_STATUS = Parameter(
    "status",
    {"enum": ["queued", "pending", "delivered", "failed", "partial"]},
    "Only messages of this status; pending means queued.",
)
INBOX_STATUS = Parameter("status", {"enum": ["unread", "read"]}, "Only unread or only read ones.")
WAIT = Parameter("wait", SECONDS, "Seconds to wait for something to come.")
LEASE_SECONDS = Parameter("lease", SECONDS, "Seconds for which what is handed out is yours alone.")
LEASE_TOKEN = Parameter("lease", text(format="uuid"), "The token under which it is held.")
OF_DOMAIN = Parameter("domain", DOMAIN, "Only agents of this domain.")
AGENT_STATE = Parameter("state", {"enum": ["active", "retired"]}, "Only agents in this state.")
DELIVERY_MODE = Parameter("delivery_mode", {"enum": ["pull", "push"]}, "Only agents of this mode.")
SUPPORTED_SCHEMA = Parameter("schema", text(minLength=1, maxLength=256), "Only agents that support it.")
WORDS_SOUGHT = Parameter("q", text(minLength=1, maxLength=256), "Words in the name or the description.")
ACTIVE_ONLY = Parameter("active_only", {"enum": ["true", "false"]}, "Only agents seen of late.")
OPEN_MAIL = Parameter(
    "mail", {"enum": ["return", "drop"]}, "Remove the agent; what becomes of its open mail."
)

SEND = Operation(
    MESSAGES,
    "Hand in a message: 202 once it is committed, 200 with the reply that `Prefer: wait=<seconds>` asks for, or"
    " where best_effort had success; or up to 100 as lines: 200 and a line for each.",
    {202: {JSON: "Acceptance"}, 200: {JSON: "Answered", LINES: ""}},
    keys=MAYBE_KEY,
    refusals=(403, 404, 409),
    body={JSON: "Message", LINES: ""},
)
LIST_MESSAGES = Operation(
    MESSAGES,
    "Messages, newest first: what you sent, or with `recipient` what you received; to operators, all.",
    ok("StatusList"),
    refusals=(403,),
    parameters=(MESSAGE_STATUS, SENDER, RECIPIENT, *PAGING),
)
SHOW_MESSAGE = Operation(
    MESSAGES,
    "What became of a message, and its envelope.",
    ok("MessageStatus"),
    parameters=(SENDER, ROW),
)
SHOW_STATUS = Operation(MESSAGES, "What became of a message.", ok("Status"), parameters=(SENDER, ROW))
CANCEL_MESSAGE = Operation(
    MESSAGES,
    "Cancel what is queued, scheduled or held.",
    ok("Status"),
    refusals=(403, 409),
    parameters=(SENDER, ROW),
)
READ_INBOX = Operation(
    INBOX,
    "What lies in an inbox, oldest first; fetching marks it read. As an event stream, what comes too.",
    {200: {JSON: "InboxPage", EVENTS: ""}},
    refusals=(403,),
    parameters=(*PAGING, INBOX_STATUS, WAIT, LEASE_SECONDS),
)
ACKNOWLEDGE = Operation(
    INBOX,
    "Acknowledge a message, which is not handed out again; what goes with it is sent in the same act.",
    ok("Acknowledged"),
    refusals=(403, 409),
    parameters=(SENDER, LEASE_TOKEN),
    body=json_body("Answer"),
    body_required=False,
)
ACKNOWLEDGE_MANY = Operation(
    INBOX,
    "Acknowledge many; each has its own result.",
    ok("AcknowledgementResults"),
    refusals=(403,),
    body=json_body("Acknowledgements"),
)
CHANGE_LEASE = Operation(
    INBOX,
    "Let a lease end later, or now.",
    ok("LeaseHeld"),
    refusals=(403, 409),
    body=json_body("LeaseChange"),
)
PURGE_INBOX = Operation(
    INBOX,
    "Let go of what nobody wants to read; for its agent and for operators, audited.",
    ok("InboxPurged"),
    refusals=(403,),
    body=json_body("Purge"),
)
LIST_OWN_LETTERS = Operation(
    INBOX,
    "What the agent took too often and never acknowledged.",
    ok("OwnDeadLetters"),
    refusals=(403,),
    parameters=(LIMIT, NUMBER_CURSOR),
)
REPLAY_OWN_LETTER = Operation(INBOX, "Put one back into the inbox.", ok("OwnDeadLetter"), refusals=(403,))
DROP_OWN_LETTER = Operation(INBOX, "Let go of one.", ok("OwnDeadLetter"), refusals=(403,))
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
    "Agents by name.",
    ok("AgentList"),
    keys=ADMIN_KEY,
    refusals=(403, 404),
    parameters=(LIMIT, NAME_CURSOR, OF_DOMAIN, AGENT_STATE, DELIVERY_MODE, SUPPORTED_SCHEMA, WORDS_SOUGHT),
)
SHOW_AGENT = Operation(AGENTS, "An agent.", ok("AgentAnswer"), keys=ADMIN_KEY, refusals=(403,))
CHANGE_AGENT = Operation(
    AGENTS,
    "Change what is said of an agent; null takes a detail away.",
    ok("AgentAnswer"),
    keys=ADMIN_KEY,
    refusals=(403, 409),
    body=json_body("AgentChange"),
)
RETIRE_AGENT = Operation(
    AGENTS,
    "Retire an agent: its keys die, its inbox stays. With `mail` it is removed for good.",
    ok("AgentAnswer"),
    keys=ADMIN_KEY,
    refusals=(403,),
    parameters=(OPEN_MAIL,),
)
ROTATE_KEY = Operation(
    AGENTS,
    "A new key for an agent; the old one lives on for a grace period.",
    ok("AgentAnswer"),
    keys=ADMIN_KEY,
    refusals=(403, 409),
    body=json_body("KeyRotation"),
    body_required=False,
)
ROTATE_PUSH_SECRET = Operation(
    AGENTS,
    "A new secret that what is pushed to the agent is signed with, beside the old one for a grace period.",
    ok("AgentAnswer"),
    keys=ADMIN_KEY,
    refusals=(403, 409),
    body=json_body("SecretRotation"),
    body_required=False,
)
DISCOVER = Operation(
    DISCOVERY,
    "Agents that want to be found.",
    ok("DiscoveredAgents"),
    refusals=(404,),
    parameters=(LIMIT, NAME_CURSOR, OF_DOMAIN, DELIVERY_MODE, SUPPORTED_SCHEMA, WORDS_SOUGHT, ACTIVE_ONLY),
)
DISCOVER_OF_DOMAIN = Operation(
    DISCOVERY,
    "Agents of one domain that want to be found.",
    ok("DiscoveredAgents"),
    parameters=(LIMIT, NAME_CURSOR, DELIVERY_MODE, SUPPORTED_SCHEMA, WORDS_SOUGHT, ACTIVE_ONLY),
)
SHOW_CAPABILITIES = Operation(
    DISCOVERY, "What a domain's gateway can do, as it says in the DNS.", ok("Capabilities")
)
HEALTH = Operation(WATCH, "Whether the process lives.", ok("Health"), keys=NO_KEY)
READY = Operation(
    WATCH, "Whether it may be sent work; why not, on listeners for operators.", ok("Ready"), keys=NO_KEY
)
METRICS = Operation(WATCH, "Counters for Prometheus.", {200: {CONTENT_TYPE: ""}}, keys=NO_KEY)
