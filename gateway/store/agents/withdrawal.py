"""Agents whose webhook is gone: they read their inbox from now on, and the operator finds a mail about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from gateway.store.admitted import Admitted
from gateway.store.agents.keys import directory_changed
from gateway.store.audit import Audit
from gateway.store.intake.insertion import insert

ACTOR = "gateway"


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """Written beside the delivery that found it out. Of several, one takes effect."""

    agent: int
    name: str
    url: str  # the one that is gone; an agent that has another meanwhile keeps it
    mail: Admitted | None  # to the operator
    batch: UUID  # of that mail
    audit: Audit

    @staticmethod
    async def write(line: Any, withdrawals: Sequence["Withdrawal"], /) -> None:
        for withdrawal in {one.agent: one for one in withdrawals}.values():
            changed = await line.fetchval(
                "update agents set delivery_mode = 'pull'"
                " where id = $1 and delivery_mode = 'push' and push_url = $2 returning id",
                withdrawal.agent,
                withdrawal.url,
            )
            if changed is None:
                continue
            if withdrawal.mail is not None:
                await insert(line, withdrawal.batch, [withdrawal.mail])
            await directory_changed(line, withdrawal.name)
            await withdrawal.audit.write(line, ACTOR, "agent.push_ended", withdrawal.name)
