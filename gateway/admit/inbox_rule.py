"""The rule for opening an inbox: its agent may; operators may open a postmaster's, but don't read agents' mail."""

from gateway.admit.caller import ADMIN, Caller
from gateway.admit.rules import require_known
from gateway.protocol.address import Address
from gateway.protocol.errors import AMTPError, Code

POSTMASTER = "postmaster"


def inbox_rule(caller: Caller, address: Address) -> None:
    """Raises where the inbox is not the caller's, whether or not it exists."""
    require_known(caller)
    if address.local == POSTMASTER and ADMIN in caller.scopes:
        return
    if not caller.development and caller.agent != address.name:
        raise AMTPError(
            Code.SENDER_NOT_ALLOWED,
            f"The key you sent does not open the inbox of {address.name}: use that agent's own key.",
        )
