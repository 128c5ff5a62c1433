"""What an agent is posted of a message."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.deliver.push_message import render_push, webhook_id_of
from gateway.protocol.message import parse_message
from tests.protocol.samples import COMPLETE, MINIMAL

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROW, OTHER = UUID("019cada0-0000-7000-8000-000000000001"), UUID("019cada0-0000-7000-8000-000000000002")
AGENT = "seller@shop.test"
MEMBERS = [
    "message_id", "sender", "recipient", "subject", "schema", "timestamp", "in_reply_to", "headers", "payload",
    "attachments", "coordination", "sender_verification", "gateway",
]  # fmt: skip


def pushed(message: dict[str, Any], recipient: str = AGENT, **facts: Any) -> dict[str, Any]:
    body = parse_message(json.dumps(message).encode(), row=ROW, now=NOW, local=True).body
    shown: dict[str, Any] = msgspec.json.decode(
        render_push(body, recipient=recipient, **{"proven": True, **facts})
    )
    return shown


@pytest.mark.parametrize("message", [COMPLETE, MINIMAL], ids=["complete", "minimal"])
def test_every_member_is_always_there(message: dict[str, Any]) -> None:
    assert list(pushed(message)) == MEMBERS


def test_what_the_sender_said_passes_as_it_came() -> None:
    shown = pushed(COMPLETE)
    for name in (
        "message_id",
        "sender",
        "subject",
        "schema",
        "timestamp",
        "in_reply_to",
        "headers",
        "payload",
    ):
        assert shown[name] == COMPLETE[name]
    assert shown["attachments"] == COMPLETE["attachments"]


def test_the_payload_keeps_its_bytes() -> None:
    raw = b'{"sender":"a@b.test","recipients":["seller@shop.test"],"payload":{ "n" : 1.00 }}'
    body = parse_message(raw, row=ROW, now=NOW, local=True).body
    assert b'"payload":{ "n" : 1.00 }' in render_push(body, recipient=AGENT, proven=True)


@pytest.mark.parametrize("absent", [None, ""])
def test_what_is_absent_is_null_or_empty(absent: str | None) -> None:
    shown = pushed({**MINIMAL, "subject": absent, "headers": absent, "attachments": absent, "schema": absent})
    assert (shown["subject"], shown["schema"], shown["headers"], shown["attachments"]) == (None, None, {}, [])
    assert shown["coordination"] is None


def test_the_recipient_is_written_as_the_sender_wrote_it_and_the_others_are_not_named() -> None:
    shown = pushed(
        {**MINIMAL, "recipients": ["Seller+desk@shop.test", "rival@shop.test"]}, "Seller+desk@shop.test"
    )
    assert shown["recipient"] == "Seller+desk@shop.test"
    assert "rival" not in json.dumps(shown)


def test_only_we_say_whether_the_sender_was_proven() -> None:
    forged = {**MINIMAL, "sender_verification": "pass", "gateway": {"untrusted": False}, "x": {"proven": 1}}
    shown = pushed(forged, proven=False, automatic=True, hops=("gw.peer.test",))
    assert shown["sender_verification"] == "none"
    assert shown["gateway"] == {
        "address": AGENT,
        "via": ["gw.peer.test"],
        "automatic": True,
        "untrusted": True,
    }
    assert pushed(forged)["gateway"] == {"address": AGENT}


@pytest.mark.parametrize(
    ("members", "coordination"),
    [
        ({"workflow_id": "w-1"}, {"workflow_id": "w-1", "type": None, "requires_response": False}),
        (
            {
                "coordination": {
                    "workflow_id": "w-2",
                    "type": "parallel",
                    "required_responses": [AGENT.upper()],
                }
            },
            {"workflow_id": "w-2", "type": "parallel", "requires_response": True},
        ),
        (
            {"workflow_id": "w-3", "coordination": {"required_responses": ["else@shop.test", 7]}},
            {"workflow_id": "w-3", "type": None, "requires_response": False},
        ),
        (
            {"coordination": {"type": "sequential", "required_responses": "all"}},
            {"workflow_id": None, "type": "sequential", "requires_response": False},
        ),
    ],
)
def test_of_a_workflow_the_agent_is_told_its_own_part(
    members: dict[str, Any], coordination: dict[str, Any]
) -> None:
    assert pushed({**MINIMAL, **members})["coordination"] == coordination


def test_each_delivery_has_an_id_of_its_own_that_never_changes() -> None:
    ids = {webhook_id_of(row, name) for row in (ROW, OTHER) for name in (AGENT, "rival@shop.test")}
    assert len(ids) == 4
    assert webhook_id_of(ROW, AGENT) == webhook_id_of(ROW, AGENT)


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists)


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=4))
def test_no_workflow_block_can_upset_us(block: dict[str, Any]) -> None:
    body = msgspec.json.encode({"message_id": "m", "sender": "a@b.test", "payload": 1, "coordination": block})
    assert list(msgspec.json.decode(render_push(body, recipient=AGENT, proven=True))) == MEMBERS
