"""No name passes that one reader of JSON takes for a known member and the next does not."""

from typing import Any

import msgspec
import pytest

from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.message import Message, parse_message
from tests.protocol.samples import NOW, ROW

FOLDED = {
    "Sender_Verification": "sender_verification",
    "Gateway": "gateway",
    "GATEWAY": "gateway",
    "senderVerification": "sender_verification",
    "sender-verification": "sender_verification",
    "SENDER": "sender",
    "\u017fender": "sender",  # the long s, which Go's encoding/json takes for an s
    "\u212aey": None,
    "idempotency_\u212aey": "idempotency_key",  # the sign for kelvin
    "\uff53\uff45\uff4e\uff44\uff45\uff52": "sender",  # full width
    "VERS\u0130ON": "version",
    "vers\u0131on": "version",
    "sender ": "sender",
    " payload": "payload",
    "pay load": "payload",
    "payload\t": "payload",
    "sub\u00adject": "subject",
    "\ufeffheaders": "headers",
    "reci\u200bpients": "recipients",
    "sche\ufe0fma": "schema",
    "Message_Type": "message_type",
    "payload" + " " * 5000: "payload",
    "payload" + "\u200b" * 5000: "payload",
}
OWN = [
    "x",
    "sender_name",
    "x-gateway",
    "idempotencyKey",
    "sch\u00e9ma",
    "Trace",
    "\u0441hannel",
    "a" * 5000,
    "\u0301" * 5000,
]


def message(**members: Any) -> dict[str, Any]:
    return {"version": "1.0", "sender": "a@a.test", "recipients": ["b@b.test"], "payload": 1, **members}


def read(document: dict[str, Any], *, local: bool = False) -> Message:
    return parse_message(msgspec.json.encode(document), row=ROW, now=NOW, local=local)


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("name", [name for name, known in FOLDED.items() if known], ids=ascii)
def test_a_name_that_reads_as_a_known_one_is_refused_and_named(name: str, local: bool) -> None:
    with pytest.raises(AMTPError) as refused:
        read(message(**{name: "pass"}), local=local)
    assert refused.value.code is Code.INVALID_MESSAGE_FORMAT
    assert refused.value.details == {"field": ascii(name[:64])[1:-1], "nearest": FOLDED[name]}


@pytest.mark.parametrize("name", OWN, ids=lambda name: ascii(name[:20]))
def test_a_name_of_the_senders_own_passes_with_its_bytes(name: str) -> None:
    raw = msgspec.json.encode(message(**{name: 1}))
    assert msgspec.json.decode(parse_message(raw, row=ROW, now=NOW, local=False).body)[name] == 1


@pytest.mark.parametrize(
    ("place", "members"),
    [
        ("headers.Reply-To", {"headers": {"Reply-To": "c@c.test"}}),
        ("headers.priorit\\u200by", {"headers": {"priorit\u200by": "high"}}),
        ("coordination.TYPE", {"coordination": {"type": "parallel", "TYPE": "graph"}}),
        ("signature.Value", {"signature": {"algorithm": "a", "keyid": "k", "value": "v", "Value": "w"}}),
        (
            "attachments[1].URL",
            {
                "attachments": [
                    {
                        "filename": "f",
                        "content_type": "a/b",
                        "size": 1,
                        "hash": "sha256:" + "0" * 64,
                        "url": "https://a.test/f",
                        **more,
                    }
                    for more in ({}, {"URL": "https://b.test/f"})
                ]
            },
        ),
    ],
)
def test_a_name_inside_that_reads_as_a_known_one_is_refused_by_its_place(
    place: str, members: dict[str, Any]
) -> None:
    with pytest.raises(AMTPError) as refused:
        read(message(**members))
    assert refused.value.details is not None
    assert refused.value.details["field"] == place


def test_a_payload_may_use_any_names() -> None:
    assert read(message(payload={"Gateway": 1, "gateway": 2, "SENDER": 3}))


def test_what_looks_misspelt_is_told_and_what_does_not_is_not() -> None:
    kept = {"idempotency_kye": "k", "subjet": "s", "inReplyTo": "m", "sender_name": "A", "x-trace": "t"}
    assert read(message(**kept)).misspelt == (
        ("idempotency_kye", "idempotency_key"),
        ("inReplyTo", "in_reply_to"),
        ("subjet", "subject"),
    )
    assert read(message(subject="s", headers={"prioritty": "x"})).misspelt == ()


def test_a_message_with_a_vocabulary_of_its_own_is_not_judged_name_by_name() -> None:
    assert read(message(**{f"payload{n}": n for n in range(100)})).misspelt == ()
