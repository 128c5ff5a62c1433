"""The check that records the id under which a message came, where that is not its sender's own."""

from collections.abc import Awaitable
from uuid import UUID

from gateway.admit.caller import Caller
from gateway.admit.checks import Judgement, Pass, Stage
from gateway.protocol.message import Message
from gateway.store.messages.correspondence import CameAs


class RestoredCheck:
    stage = Stage.RECORDS

    def judge(self, message: Message, _caller: Caller, /) -> Awaitable[Judgement] | None:
        """Records the id by which the peer knows the message, for replies to it."""
        return None if message.came_as is None else self._judge(message.row, message.came_as)

    async def _judge(self, row: UUID, came_as: str) -> Judgement:
        return Pass((CameAs(row, came_as),))
