"""The endpoint that purges an inbox, for its agent or an operator, whose purge is audited."""

from dataclasses import asdict

import msgspec

from gateway.admit.authenticate import Authenticator
from gateway.admit.caller import ADMIN
from gateway.admit.inbox_rule import inbox_rule
from gateway.admit.residents import Residents
from gateway.http.answers import Answer, answer_json
from gateway.http.bodies import checked_age, nothing_meant
from gateway.http.request import Request
from gateway.http.roles import Role
from gateway.http.routing import Route
from gateway.protocol.address import parse_address
from gateway.protocol.errors import AMTPError, Code
from gateway.receive.agent_profile import BODY_BYTES_MAX, read_body
from gateway.receive.openapi_operations import PURGE_INBOX
from gateway.store.inbox.purging import Purging, Unwanted

ROLES = frozenset({Role.AGENTS, Role.ADMIN})


class Purge(msgspec.Struct, forbid_unknown_fields=True):
    """The selection of open entries to purge; `older_than` in seconds since their messages were accepted."""

    older_than: int | None = None
    sender: str | None = None
    unproven: bool = False
    all: bool = False
    dry_run: bool = False


class PurgeDoor:
    def __init__(self, *, authenticator: Authenticator, residents: Residents, purging: Purging) -> None:
        self._authenticator = authenticator
        self._residents = residents
        self._purging = purging

    def routes(self) -> list[Route]:
        return [Route("POST", "/v1/inbox/{address}/purge", self.purge, ROLES, PURGE_INBOX)]

    async def purge(self, request: Request) -> Answer:
        address = parse_address(request.params["address"], "address")
        caller = await self._authenticator.caller(request)
        if ADMIN not in caller.scopes:
            inbox_rule(caller, address)
        said = read_body(await request.json_body(BODY_BYTES_MAX), Purge)
        unwanted = _unwanted(said)
        resident = (await self._residents.resolve([address.name])).get(address.name)
        if resident is None:
            raise AMTPError(Code.AGENT_UNKNOWN, f"No agent {address.name} is registered here.")
        matched = await self._purging.count(resident.id, unwanted)
        purged, more = 0, False
        if not said.dry_run:
            actor = caller.agent or caller.name or "development"
            purged, more = await self._purging.purge(resident.id, resident.name, unwanted, actor)
        return answer_json(
            {
                "recipient": resident.name,
                "dry_run": said.dry_run,
                "matched": matched,
                "purged": purged,
                "has_more": more,
            }
        )


def _unwanted(said: Purge) -> Unwanted:
    sender = None if said.sender is None else parse_address(said.sender, "sender").name
    unwanted = Unwanted(checked_age(said.older_than, "older_than"), sender, said.unproven)
    if not said.all and not any(asdict(unwanted).values()):
        raise nothing_meant()
    return unwanted
