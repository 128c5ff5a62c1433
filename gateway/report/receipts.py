"""Receipts: tell a sender who asked for one that a message was delivered here, or read.

1. A receipt comes from the postmaster of the recipient's domain, in reply to the message. For a recipient
   elsewhere the gateway there writes it.
2. Unproven senders get none, and automatic messages cause none: not a report, not another receipt.
3. A receipt owed is noted in the transaction that delivered or read, and deleted in the one that writes the
   receipt: see `gateway.store.intake.owed_receipts`.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec.structs import replace

from gateway.protocol.message import Message, parse_message
from gateway.report.failures import POSTMASTER, may_report
from gateway.report.postmaster import Postmaster
from gateway.report.replies import COPIED
from gateway.route.placing import INBOX, Places
from gateway.store.admitted import Admitted
from gateway.store.intake.owed_receipts import AT_ONCE, DueReceipt, Owed, send_owed
from gateway.store.runtime import Runtime
from gateway.store.wakeups.topics import topics_of

RECEIPT = "receipt"

_SUBJECT = {"delivered": "Delivered", "read": "Read"}


def owing(admitted: Admitted, places: Places) -> Admitted:
    """Returns the message with a note of the receipts that it will owe its sender."""
    message = admitted.message
    wanted = message.headers.receipt
    if wanted == "none" or not may_report(
        sender=message.sender.name, proven=admitted.proven, automatic=admitted.automatic
    ):
        return admitted
    here = [state.address for state in places.states if state.via == INBOX]
    owed = zip(admitted.entries, here, strict=True) if wanted == "delivered" else ()
    return replace(
        admitted,
        entries=tuple(replace(entry, receipt=wanted == "read") for entry in admitted.entries),
        deliveries=tuple(
            # The destination of an agent here is its name; another gateway's is a domain.
            replace(queued, receipt=wanted) if "@" in queued.destination else queued
            for queued in admitted.deliveries
        ),
        riders=(
            *admitted.riders,
            *(Owed(message.row, entry.agent, address) for entry, address in owed),
        ),
    )


class Receipts:
    """The chore that writes receipts owed."""

    def __init__(self, runtime: Runtime, postmaster: Postmaster) -> None:
        self._runtime = runtime
        self._postmaster = postmaster

    async def send(self) -> None:
        """Writes receipts until none is owed; skips those that other processes are writing."""
        while True:
            sent = await send_owed(self._runtime.database, self._runtime.row_ids, self._written)
            self._runtime.ring(topics_of(sent.written))
            if sent.owed < AT_ONCE:
                return

    async def _written(self, due: DueReceipt) -> Sequence[Admitted]:
        written = []
        for domain, addresses in by_domain(due.addresses).items():
            message = receipt_on(
                due, addresses, domain=domain, row=self._runtime.row_ids(), now=self._runtime.clock.now()
            )
            admitted = await self._postmaster.addressed(message)
            if admitted is not None:
                written.append(admitted)
        return written


def by_domain(addresses: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for address in addresses:
        found.setdefault(address.rpartition("@")[2].lower(), []).append(address)
    return found


def receipt_on(
    due: DueReceipt, addresses: Sequence[str], *, domain: str, row: UUID, now: datetime
) -> Message:
    """Returns the receipt, from the postmaster of `domain` to the sender of the message it is about."""
    original = msgspec.json.decode(due.body, type=_Original)
    facts: dict[str, Any] = {
        "message_type": RECEIPT,
        "receipt": due.kind,
        "original_message_id": original.message_id,
        f"{due.kind}_recipients": list(addresses),
    }
    known = original.headers or {}
    body = {
        "version": "1.0",
        "sender": f"{POSTMASTER}@{domain}",
        "recipients": [original.sender],
        "subject": _SUBJECT[due.kind],
        "in_reply_to": original.message_id,
        "headers": {
            "auto-submitted": "auto-generated",
            "kind": "ack",
            **{name: known[name] for name in COPIED if known.get(name)},
        },
        **facts,
        "payload": facts,
    }
    return parse_message(msgspec.json.encode(body), row=row, now=now, local=True)


class _Original(msgspec.Struct):
    """The members of the original that a receipt needs; the rest is not parsed."""

    message_id: str
    sender: str
    headers: dict[str, Any] | None = None
