"""What messages say is for their agents: an operator sees it with a reason, and the audit keeps who, what and why."""

from gateway.admit.caller import Caller
from gateway.http.bodies import reason_of
from gateway.http.request import Request
from gateway.protocol.errors import AMTPError, Code
from gateway.store.audit import Audit
from gateway.store.database import Database

WITHHELD = "Payload and files are shown to an operator with ?reason=, which is audited."


class ContentRule:
    """Decides whether a caller who may see that there is a message may see what it says."""

    def __init__(self, database: Database, audit: Audit) -> None:
        self._database = database
        self._audit = audit

    async def opens(self, request: Request, caller: Caller, message_id: str, what: str) -> bool:
        """Returns whether the content is shown; an operator's look is in the audit before that."""
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
        """Raises where the content is not shown."""
        if not await self.opens(request, caller, message_id, what):
            raise AMTPError(
                Code.POLICY_DENIED,
                "Operators read what messages say with a reason: add ?reason=, which is audited.",
                {"field": "reason"},
            )
