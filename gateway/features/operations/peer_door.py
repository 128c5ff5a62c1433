"""The operators' door to other domains' gateways: their records, their state, and the last contacts."""

from collections.abc import Callable, Collection
from typing import Any

from gateway.admit.authenticate import Authenticator
from gateway.admit.rules import require_admin
from gateway.features.operations.destination_door import render_destination, render_known, render_lane
from gateway.features.operations.destinations import DestinationState, destinations_named
from gateway.features.operations.openapi import FIND_PEERS, SHOW_PEER
from gateway.features.operations.peers import Peer, peer, peers
from gateway.features.operations.queue_door import OPERATORS, moment
from gateway.flow.lanes import Lanes
from gateway.http.answers import Answer, answer_json
from gateway.http.parameters import limit_of
from gateway.http.request import Request
from gateway.http.routing import Route
from gateway.protocol.address import parse_domain
from gateway.protocol.discovery import Capabilities, Speaks, parse_record
from gateway.protocol.errors import AMTPError, Code
from gateway.route.directory import Directory
from gateway.store.database import Database


class PeerDoor:
    def __init__(
        self,
        *,
        database: Database,
        authenticator: Authenticator,
        lanes: Lanes,
        directory: Directory,
        configured: Callable[[], Collection[str]],
    ) -> None:
        """Takes its collaborators; `configured` returns the domains whose gateways the configuration names."""
        self._database = database
        self._authenticator = authenticator
        self._lanes = lanes
        self._directory = directory
        self._configured = configured

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/v1/admin/peers", self.find, OPERATORS, FIND_PEERS),
            Route("GET", "/v1/admin/peers/{domain}", self.show, OPERATORS, SHOW_PEER),
        ]

    async def find(self, request: Request) -> Answer:
        require_admin(await self._authenticator.caller(request))
        limit = limit_of(request.query)
        await self._lanes.contacts.write(self._database)
        after = request.query.get("cursor", "")
        found = await peers(self._database, self._configured(), after=after, limit=limit + 1)
        has_more = len(found) > limit
        return answer_json(
            {
                "peers": await self._rendered(found[:limit]),
                "count": min(len(found), limit),
                "has_more": has_more,
                "cursor": found[limit - 1].domain if has_more else None,
            }
        )

    async def show(self, request: Request) -> Answer:
        require_admin(await self._authenticator.caller(request))
        domain = parse_domain(request.params["domain"], "domain")
        await self._lanes.contacts.write(self._database)
        found = await peer(self._database, self._configured(), domain)
        if found is None:
            raise AMTPError(
                Code.NOT_FOUND, f"Nothing is known of {domain}: no message went there or came from it."
            )
        (rendered,) = await self._rendered([found])
        return answer_json(rendered)

    async def _rendered(self, found: list[Peer]) -> list[dict[str, Any]]:
        waiting = await destinations_named(self._database, [each.domain for each in found])
        return [self._render(each, waiting.get(each.domain, DestinationState(each.domain))) for each in found]

    def _render(self, found: Peer, waiting: DestinationState) -> dict[str, Any]:
        lane = self._lanes.known(found.domain)
        known = self._directory.known(found.domain)
        published = _published(found, None if known is None else known.result)
        contacts = [at for at in (found.answered_at, found.heard_at) if at is not None]
        return {
            "domain": found.domain,
            "source": "configuration" if found.domain in self._configured() else "dns",
            "publishes": None if published is None else _rendered(published),
            "spoke_at": moment(found.spoke_at),
            "silent_since": moment(found.silent_since),
            "directory": None if known is None else render_known(found.domain, known),
            "last_contact": moment(max(contacts, default=None)),
            "answered_at": moment(found.answered_at),
            "heard_at": moment(found.heard_at),
            "window": None if lane is None else render_lane(lane),
            **{name: value for name, value in render_destination(waiting).items() if name != "destination"},
        }


def _published(found: Peer, result: object) -> Capabilities | None:
    """Returns the capabilities that a peer publishes now, else those of its last good record."""
    if not isinstance(result, Speaks) and found.record is not None:
        result = parse_record(found.record, plain=True)
    return result.capabilities if isinstance(result, Speaks) else None


def _rendered(published: Capabilities) -> dict[str, Any]:
    return {
        "gateway": published.gateway_url,
        "auth": list(published.auth),
        "max_size": published.max_size,
        "features": sorted(published.features),
    }
