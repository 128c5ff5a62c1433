"""A stand-in for the Go gateway (agentry): how it judges identifiers and addresses, remembers and answers.

peer.will(go := GoGateway("go.test"))
go.inbox("dave@go.test")[0]["message_id"]

1. A message id, and what `in_reply_to` names, is a UUIDv7, a key a UUIDv4; else 400 with an envelope.
2. A recipient is taken by its exact name: another spelling is another agent, another spelling of the domain nobody.
3. A key is known in the whole gateway, whoever sends it, and answers as it did the first time. It and the message id
   belong together: either one with another is an internal error, and so are both after a restart.
4. It posts once for each recipient, with every member, `null` or "" where there is nothing.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from conformance.fake_peer import Exchange, Received

_UUID = r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-%d[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}"
V7, V4 = re.compile(_UUID % 7), re.compile(_UUID % 4)
MOMENT = "2026-01-01T00:00:00.123456789Z"

Told = tuple[int, dict[str, Any]]  # an answer's status and body


@dataclass
class GoGateway:
    """A behaviour of a fake peer; `missing` are agents that it can't deliver to."""

    domain: str = "go.test"
    missing: set[str] = field(default_factory=set)
    stored: dict[str, dict[str, Any]] = field(default_factory=dict)  # messages by id
    states: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # of their recipients
    remembered: dict[str, Told] = field(default_factory=dict)  # answers by key, in memory

    async def __call__(self, exchange: Exchange) -> None:
        request = await exchange.read_body()
        if request.batch:
            lines = [json.dumps(self.take(message)[1]).encode() for message in request.messages]
            await exchange.answer(200, b"\n".join(lines) + b"\n", content_type="application/x-ndjson")
            return
        status, body = self.take(request.messages[0]) if request.method == "POST" else self._shown(request)
        kind = "application/json; charset=utf-8"
        await exchange.answer(status, json.dumps(body).encode(), content_type=kind)

    def inbox(self, address: str) -> list[dict[str, Any]]:
        """What was delivered to the agent of exactly this name."""
        return [
            self.stored[message_id]
            for message_id, told in self.states.items()
            if any(one["address"] == address and one["status"] == "delivered" for one in told)
        ]

    def restart(self) -> None:
        """Forgets what it had in memory; the messages stay."""
        self.remembered.clear()

    def take(self, message: dict[str, Any]) -> Told:
        fault = _fault(message)
        if fault:
            return refusal(
                400, "MESSAGE_VALIDATION_FAILED", "Message validation failed", {"validation_error": fault}
            )
        key, message_id = message["idempotency_key"], message["message_id"]
        if key in self.remembered:
            return self.remembered[key]
        keys = {stored["idempotency_key"] for stored in self.stored.values()}
        if message_id in self.stored or key in keys:
            error = {"processing_error": "duplicate key value violates unique constraint"}
            return refusal(500, "PROCESSING_FAILED", "Message processing failed", error)
        told = [self._told(address) for address in message["recipients"]]
        self.stored[message_id], self.states[message_id] = message, told
        failed = any(one["status"] == "failed" for one in told)
        body = {"message_id": message_id, "status": "failed" if failed else "delivered", "recipients": told}
        self.remembered[key] = (400 if failed else 200, body)
        return self.remembered[key]

    def _told(self, address: str) -> dict[str, Any]:
        told = {"address": address, "status": "delivered", "timestamp": MOMENT, "attempts": 1}
        name, _, domain = address.partition("@")
        if name in self.missing or domain != self.domain:
            refused = {"status": "failed", "error_code": "DELIVERY_FAILED", "error_message": "no such agent"}
            return {**told, **refused}
        return {**told, "delivery_mode": "pull", "local_delivery": True, "inbox_delivered": True}

    def _shown(self, request: Received) -> Told:
        message_id, _, status = request.path.removeprefix("/v1/messages/").partition("/")
        if status != "status":
            return 200, {"status": "healthy"}
        if not V7.fullmatch(message_id):
            return refusal(400, "INVALID_MESSAGE_ID", "Invalid message ID format")
        if message_id not in self.states:
            return refusal(404, "MESSAGE_NOT_FOUND", "Message status not found")
        told = self.states[message_id]
        whole = "failed" if any(one["status"] == "failed" for one in told) else "delivered"
        return 200, {"message_id": message_id, "status": whole, "recipients": told, "attempts": 1}


def refusal(status: int, code: str, message: str, details: dict[str, Any] | None = None) -> Told:
    error = {"code": code, "message": message, "timestamp": MOMENT}
    return status, {"error": error | ({"details": details} if details else {})}


def _fault(message: dict[str, Any]) -> str | None:
    for name, form, version in (("message_id", V7, 7), ("idempotency_key", V4, 4), ("in_reply_to", V7, 7)):
        text = message.get(name) or ""
        if not form.fullmatch(text) and (text or name != "in_reply_to"):
            return f"field format validation failed: invalid {name} format, must be UUIDv{version}: {text}"
    return None


def go_message(message_id: str, key: str, sender: str, recipient: str, **members: Any) -> dict[str, Any]:
    """What it posts for one recipient."""
    return {
        "attachments": None,
        "coordination": None,
        "headers": None,
        "idempotency_key": key,
        "in_reply_to": "",
        "message_id": message_id,
        "payload": None,
        "recipients": [recipient],
        "response_type": "",
        "schema": "",
        "sender": sender,
        "signature": None,
        "subject": "",
        "timestamp": "2026-01-01T12:00:00Z",
        "version": "1.0",
        **members,
    }
