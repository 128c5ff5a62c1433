"""Section 4: the message and its fields."""

import re
from datetime import datetime
from typing import Any
from uuid import UUID

from conformance.check import core, extended, holds, same
from conformance.target import ELSEWHERE, JSON, Target

ATTACHMENT: dict[str, Any] = {
    "filename": "report.pdf",
    "content_type": "application/pdf",
    "size": 12,
    "hash": f"sha256:{'0f' * 32}",
    "url": "https://files.example/report.pdf",
}
OPTIONAL = (
    "message_id",
    "idempotency_key",
    "timestamp",
    "subject",
    "headers",
    "in_reply_to",
    "schema",
    "response_type",
    "workflow_id",
    "attachments",
)
PAYLOADS = (
    '{"z":1,"a":[ 1.0, 1e2 ,-0.0, 12345678901234567890 ] , "é":"\\u00e9\\/\\ud83d\\ude00"}',
    '"text with \\" and \\\\ and \\t"',
    "[]",
    "null",
    "true",
    "0.1000000000000000055511151231257827",
    "{ }",
)
BAD_FIELDS: tuple[tuple[str, Any], ...] = (
    ("sender", 7),
    ("recipients", "alice@example.com"),
    ("recipients", []),
    ("recipients", {}),
    ("message_id", "with blank"),
    ("message_id", "x" * 129),
    ("message_id", 7),
    ("message_id", "a/b"),
    ("idempotency_key", "k" * 256),
    ("idempotency_key", "two\nlines"),
    ("idempotency_key", 7),
    ("timestamp", "yesterday"),
    ("timestamp", "2026-02-30T00:00:00Z"),
    ("timestamp", "2026-02-03T00:00:00"),
    ("timestamp", 1770000000),
    ("subject", {}),
    ("subject", ["a"]),
    ("headers", []),
    ("headers", "priority: high"),
    ("in_reply_to", {}),
    ("schema", 7),
    ("response_type", 7),
    ("workflow_id", []),
    ("attachments", {}),
    ("attachments", ["file"]),
    ("attachments", [{**ATTACHMENT, "size": -1}]),
    ("attachments", [{**ATTACHMENT, "size": "12"}]),
    ("attachments", [{**ATTACHMENT, "hash": "md5:00"}]),
    ("signature", "signed"),
    ("signature", {"algorithm": "ES256"}),
)


@core
async def a_complete_message_is_accepted_and_arrives(target: Target) -> None:
    """A message with version, sender, recipients and payload is answered by 202 and lies in the inbox."""
    alice, bob = await target.agents(2)
    message_id = await alice.sent(bob.address, payload={"hello": "bob"})
    message = await bob.only()
    same(message["message_id"], message_id, "message_id")
    same(message["version"], "1.0", "version")
    same(message["sender"], alice.address, "sender")
    same(message["recipients"], [bob.address], "recipients")
    same(message["payload"], {"hello": "bob"}, "payload")


@core
async def an_id_is_minted_where_none_is_given(target: Target) -> None:
    """A message without an id gets a UUID of version 7."""
    alice, bob = await target.agents(2)
    minted = UUID(await alice.sent(bob.address))
    same(minted.version, 7, "the version of the UUID")


@core
async def a_given_id_is_kept(target: Target) -> None:
    """A message keeps the id its sender gave it."""
    alice, bob = await target.agents(2)
    given = f"018f0000-0000-7000-8000-{target.name()[-8:]:0>12}"
    same(await alice.sent(bob.address, message_id=given), given, "the id in the receipt")
    same((await bob.only())["message_id"], given, "the id in the inbox")


@extended
async def ids_need_not_be_uuids(target: Target) -> None:
    """D: Any id of up to 128 letters, digits, dots, underscores, colons and hyphens is kept."""
    alice, bob = await target.agents(2)
    for given in (f"a:b_c.d-{target.name()}", target.name().ljust(128, "Z")):
        same(await alice.sent(bob.address, message_id=given), given, "the id in the receipt")


@core
async def a_timestamp_is_minted_or_kept(target: Target) -> None:
    """A given timestamp is passed on as it was written; where none is given one is minted."""
    alice, bob = await target.agents(2)
    written = "2026-01-02T03:04:05.678901+05:30"
    await alice.sent(bob.address, timestamp=written)
    await alice.sent(bob.address)
    first, second = await bob.inbox()
    same(first["timestamp"], written, "timestamp")
    holds(datetime.fromisoformat(second["timestamp"]).tzinfo, "the minted timestamp has a time zone")


@core
async def the_payload_is_kept_byte_for_byte(target: Target) -> None:
    """The payload reaches the inbox with the very bytes it was sent with: blanks, numbers, escapes and order."""
    alice, bob = await target.agents(2)
    for payload in PAYLOADS:
        body = f'{{"version":"1.0","sender":"{alice.address}","recipients":["{bob.address}"],"payload":{payload}}}'
        message_id = (await alice.post(body.encode())).expect(202)["message_id"]
        found = (await bob.get(f"{bob.box}?status=unread")).body
        holds(
            re.search(rb'"payload"\s*:\s*' + re.escape(payload.encode()), found), f"the inbox holds {payload}"
        )
        (await bob.delete(f"{bob.box}/{message_id}")).expect(200)


@core
async def unknown_members_are_kept(target: Target) -> None:
    """Top-level members that nobody knows are kept and passed on."""
    alice, bob = await target.agents(2)
    await alice.sent(bob.address, x_trace={"a": [1, None]}, **{"Ünknown member": "kept"})
    message = await bob.only()
    same(message["x_trace"], {"a": [1, None]}, "x_trace")
    same(message["Ünknown member"], "kept", "a member with blanks and umlauts")


@core
async def optional_fields_reach_the_recipient(target: Target) -> None:
    """Subject, headers, in_reply_to, schema, response_type, workflow_id and attachments arrive as sent."""
    alice, bob = await target.agents(2)
    said = {
        "subject": "Grüße",
        "headers": {"x-anything": ["goes"], "Content-Type": "text/plain"},
        "in_reply_to": "an-earlier-one",
        "response_type": "answer",
        "workflow_id": "w-1",
        "attachments": [ATTACHMENT, {**ATTACHMENT, "note": "more"}],
    }
    await alice.sent(bob.address, **said)
    message = await bob.only()
    for name, value in said.items():
        same(message[name], value, name)


@core
async def null_means_absent(target: Target) -> None:
    """null means absent for every optional field."""
    alice, bob = await target.agents(2)
    await alice.sent(bob.address, **dict.fromkeys(OPTIONAL))
    same(UUID((await bob.only())["message_id"]).version, 7, "the version of the minted id")


@core
async def empty_text_means_absent(target: Target) -> None:
    """The empty string means absent for every optional field, so two empty keys are no repetition."""
    alice, bob = await target.agents(2)
    empty = dict.fromkeys(OPTIONAL, "")
    ids = {await alice.sent(bob.address, **empty) for _ in range(2)}
    same(len(ids), 2, "the number of messages")
    same(len(await bob.inbox()), 2, "the number of messages in the inbox")


@core
async def required_fields_are_required(target: Target) -> None:
    """Without a sender or recipients a message is refused."""
    alice = await target.agent()
    for absent in (..., None, ""):
        (await alice.send(alice.address, sender=absent)).refused("INVALID_MESSAGE_FORMAT")
        (await alice.send(recipients=absent)).refused("INVALID_MESSAGE_FORMAT")


@core
async def fields_of_another_form_are_refused(target: Target) -> None:
    """A field of another type or form than its own is refused with INVALID_MESSAGE_FORMAT."""
    alice = await target.agent()
    for name, value in BAD_FIELDS:
        reply = await alice.send(alice.address, **{name: value})
        holds(reply.status == 400, f"{name}={value!r:.60} is refused")
        reply.refused("INVALID_MESSAGE_FORMAT")


@core
async def attachments_are_complete(target: Target) -> None:
    """An attachment that lacks one of its members is refused."""
    alice = await target.agent()
    for name in ATTACHMENT:
        part = {other: value for other, value in ATTACHMENT.items() if other != name}
        (await alice.send(alice.address, attachments=[part])).refused("INVALID_MESSAGE_FORMAT")


@core
async def another_version_is_refused(target: Target) -> None:
    """A message of another version is refused with UNSUPPORTED_VERSION."""
    alice = await target.agent()
    for version in ("2.0", "1", "1.00", "1.0 "):
        (await alice.send(alice.address, version=version)).refused("UNSUPPORTED_VERSION")


@core
async def a_thousand_recipients_are_the_most(target: Target) -> None:
    """A message has up to 1000 recipients; one more is refused."""
    alice = await target.agent()
    (await alice.send(*[alice.address] * 1000)).expect(202)
    (await alice.send(*[alice.address] * 1001)).refused("INVALID_MESSAGE_FORMAT")


@extended
async def local_agents_may_leave_version_and_payload_out(target: Target) -> None:
    """D: An authenticated local agent may leave version and payload out: 1.0 and null are meant."""
    alice, bob = await target.agents(2)
    await alice.sent(bob.address, version=..., payload=...)
    message = await bob.only()
    same(message["version"], "1.0", "version")
    same(message["payload"], None, "payload")


@extended
async def gateways_may_not_leave_version_or_payload_out(target: Target) -> None:
    """D: From elsewhere a message without version or payload is refused."""
    bob = await target.agent()
    complete = bob.message(bob.address, sender=f"someone@{ELSEWHERE}")
    for name in ("version", "payload"):
        part = {other: value for other, value in complete.items() if other != name}
        reply = await target.post(part)
        reply.refused("INVALID_MESSAGE_FORMAT", "AUTHENTICATION_FAILED", "POLICY_DENIED")


@extended
async def what_a_gateway_says_can_be_said_by_nobody_else(target: Target) -> None:
    """D: sender_verification, gateway and status are taken out of what comes in; only the gateway speaks there."""
    alice, bob = await target.agents(2)
    await alice.sent(bob.address, gateway={"forged": True}, sender_verification="forged", status="forged")
    message = await bob.only()
    holds("forged" not in message["gateway"], "gateway holds nothing of the sender's")
    holds(message.get("sender_verification") != "forged", "sender_verification is not the sender's")
    holds(message.get("status") != "forged", "status is not the sender's")


@extended
async def no_name_is_read_as_another(target: Target) -> None:
    """D: A name that a lenient reader takes for a known one is refused: in a message, its headers, its attachments."""
    alice = await target.agent()
    lenient: tuple[dict[str, Any], ...] = (
        {"Sender_Verification": "pass"},
        {"GATEWAY": {}},
        {"\u017fender": "b@example.com"},
        {"pay\u200bload": 2},
        {"headers": {"Reply-To": alice.address}},
    )
    for members in lenient:
        (await alice.send(alice.address, **members)).refused("INVALID_MESSAGE_FORMAT")
    same(await alice.inbox(), [], "the inbox")


@extended
async def a_misspelt_name_is_told(target: Target) -> None:
    """D: A message with a name close to a known one passes with it, and the receipt warns of it."""
    alice, bob = await target.agents(2)
    receipt = (await alice.send(bob.address, idempotency_kye="k")).expect(202)
    same(receipt["warnings"], [{"field": "idempotency_kye", "nearest": "idempotency_key"}], "warnings")
    same((await bob.only())["idempotency_kye"], "k", "the member")


@extended
async def a_workflow_is_not_promised(target: Target) -> None:
    """D: Until workflows exist, a local submission with a coordination block is refused rather than ignored."""
    alice = await target.agent()
    block = {"type": "parallel", "timeout": 60, "required_responses": [alice.address]}
    reply = await alice.send(alice.address, coordination=block)
    holds(400 <= reply.status < 500, "the submission is refused for good")
    reply.envelope()


@core
async def charset_of_json_is_utf_8(target: Target) -> None:
    """Text outside of ASCII arrives as it was sent, in UTF-8."""
    alice, bob = await target.agents(2)
    text = "Ünïcödé – 漢字 – 🂡"
    body = f'{{"version":"1.0","sender":"{alice.address}","recipients":["{bob.address}"],"payload":"{text}"}}'
    (await alice.post(body.encode(), f"{JSON}; charset=utf-8")).expect(202)
    same((await bob.only())["payload"], text, "payload")


@extended
async def texts_and_members_have_a_limit(target: Target) -> None:
    """D: One-line texts have at most 1024 characters, and a message at most 1000 members."""
    alice = await target.agent()
    for name in ("subject", "schema", "in_reply_to", "response_type", "workflow_id"):
        (await alice.send(alice.address, **{name: "x" * 1025})).refused("INVALID_MESSAGE_FORMAT")
    (await alice.send(alice.address, subject="ü" * 1024)).expect(202)
    many = {f"x_{number}": number for number in range(1001)}
    (await alice.send(alice.address, **many)).refused("INVALID_MESSAGE_FORMAT")
