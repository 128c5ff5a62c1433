"""Access to the content of messages: agents see their own; an operator must give a reason, which is audited."""

from gateway.admit.caller import Caller
from gateway.http.bodies import reason_of
from gateway.http.request import Request
from gateway.protocol.errors import AMTPError, Code
from gateway.store.audit import Audit
from gateway.store.database import Database

WITHHELD = "Payload and files are shown to an operator with ?reason=, which is audited."


class ContentRule:
    """The rule for callers who may see a message's envelope: whether they may see its content, too."""

    def __init__(self, database: Database, audit: Audit) -> None:
        self._database = database
        self._audit = audit

    async def opens(self, request: Request, caller: Caller, message_id: str, what: str) -> bool:
        """Returns whether the content is shown; writes an operator's access to the audit first."""
        if caller.agent is not None or caller.development:
            return True
        reason = reason_of(request.query.get("reason"))
        if reason is None or caller.name is None:
            return False
        async with self._database.transaction() as connection:
            details = {"what": what, "reason": reason}
            await self._audit.write(connection, caller.name, "content.read", message_id, details)
        return True

    async def require(self, request: Request, caller: Caller, message_id: str, what: str) -> None:
        """Raises POLICY_DENIED if the content is not shown."""
        if not await self.opens(request, caller, message_id, what):
            raise AMTPError(
                Code.POLICY_DENIED,
                "Operators read what messages say with a reason: add ?reason=, which is audited.",
                {"field": "reason"},
            )
