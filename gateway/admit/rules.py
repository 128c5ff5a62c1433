"""Rules on who may submit a message, and who is an operator: over values, without waiting.

The sender's domain decides. A local sender must be proven: by its own key, by a key that may submit
for it, or by the development mode. A sender from elsewhere comes by relay, and reaches local recipients only.
"""

from collections.abc import Collection

from gateway.admit.caller import ADMIN, SUBMIT, Caller
from gateway.protocol.address import RESERVED, Address
from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.message import Message
from gateway.store.agents.agents import Resident

DEVELOPMENT = "development"  # whom the audit names where a program on this machine needs no key


def sender_rule(caller: Caller, sender: Address, local_domains: Collection[str]) -> bool:
    """Returns whether the sender is proven; raises where the caller may not submit its mail."""
    if sender.domain not in local_domains:
        _refuse_local_key(caller, sender)
        return caller.proven_domain == sender.domain
    if sender.local in RESERVED:
        # Only the gateway itself sends from these addresses: a report must not be forged.
        raise AMTPError(
            Code.SENDER_NOT_ALLOWED,
            f"{sender.name} is a reserved address that nobody sends from.",
            {"field": "sender"},
        )
    if not _speaks_for(caller, sender):
        raise _not_the_sender(caller, sender)
    return True


def relay_rule(sender: Address, recipient: Address, local_domains: Collection[str]) -> None:
    """Raises where a sender from elsewhere writes to a recipient elsewhere: no configuration makes an open relay."""
    if sender.domain not in local_domains and recipient.domain not in local_domains:
        raise AMTPError(
            Code.RELAY_DENIED,
            f"Mail from {sender.domain} is taken for agents of this gateway only.",
            {"recipient": recipient.written},
        )


def resident_rule(caller: Caller, sender: Address, resident: Resident | None) -> None:
    """Raises where a key submits for an agent that is not there to hear what became of its mail."""
    submitted = caller.agent != sender.name and not caller.development
    if submitted and (resident is None or resident.state != "active"):
        raise AMTPError(
            Code.SENDER_NOT_ALLOWED,
            f"No active agent {sender.name} is registered here: register it before you submit for it.",
            {"field": "sender"},
        )


def offered_rule(message: Message) -> None:
    """Refuses features that this release lacks to local agents; from peers they are carried as data."""
    if message.coordination:
        raise AMTPError(
            Code.INVALID_MESSAGE_FORMAT,
            "coordination asks for what this gateway does not offer yet: leave it out.",
            {"field": "coordination"},
        )


def immediate_rule(message: Message) -> None:
    """Refuses a message that is best_effort, which is tried once and now, and also asks for a later time."""
    if message.headers.delivery != "best_effort":
        return
    later = {"deliver-after": message.headers.deliver_after, "repeat": message.headers.repeat}
    for header, asked in later.items():
        if asked is not None:
            raise AMTPError(
                Code.INVALID_MESSAGE_FORMAT,
                f"headers.{header} says later, and headers.delivery best_effort now: leave one of them out.",
                {"field": f"headers.{header}"},
            )


def may_submit_for(caller: Caller, name: str) -> bool:
    """Returns whether the caller's key may submit for this local agent."""
    return SUBMIT in caller.scopes or f"{SUBMIT}:{name}" in caller.scopes


def require_known(caller: Caller) -> None:
    """Raises where the caller proved no identity; development mode counts as one."""
    if not caller.known and not caller.development:
        raise AMTPError(Code.AUTHENTICATION_FAILED, "This takes a key: send it as Authorization: Bearer.")


def require_admin(caller: Caller) -> str:
    """Raises for callers other than operators; returns the name for the audit. An admin key can't send."""
    if caller.name is None:
        raise AMTPError(Code.AUTHENTICATION_FAILED, "This takes an admin key: send it as X-Admin-Key.")
    if ADMIN not in caller.scopes:
        raise AMTPError(Code.POLICY_DENIED, "This takes an admin key; the one you sent has other rights.")
    return caller.name


def require_registrar(caller: Caller) -> str:
    """Raises for callers other than operators; in development mode any program on this machine may register an agent."""
    return DEVELOPMENT if caller.development else require_admin(caller)


def _speaks_for(caller: Caller, sender: Address) -> bool:
    return caller.development or caller.agent == sender.name or may_submit_for(caller, sender.name)


def _not_the_sender(caller: Caller, sender: Address) -> AMTPError:
    if not caller.known:
        return AMTPError(
            Code.AUTHENTICATION_FAILED,
            f"Sending as {sender.name} takes its key: send it as Authorization: Bearer.",
            {"field": "sender"},
        )
    return AMTPError(
        Code.SENDER_NOT_ALLOWED,
        f"The key you sent may not send as {sender.name}: use that agent's own key.",
        {"field": "sender"},
    )


def _refuse_local_key(caller: Caller, sender: Address) -> None:
    """Raises where a local key is used for a sender elsewhere."""
    if caller.name is not None and caller.proven_domain is None:
        raise AMTPError(
            Code.SENDER_NOT_ALLOWED,
            f"The key you sent belongs to this gateway, which does not speak for {sender.domain}.",
            {"field": "sender"},
        )
