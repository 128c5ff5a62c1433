"""The endpoint for the capabilities of other domains' gateways: `GET /v1/capabilities/{domain}`."""

from collections.abc import Collection
from typing import Any

from gateway.admit.authenticate import Authenticator
from gateway.http.answers import Answer, answer_json
from gateway.http.request import Request
from gateway.http.routing import Route
from gateway.net.rates import Rates
from gateway.protocol.address import parse_domain
from gateway.protocol.discovery import Broken, Capabilities, Silent, Speaks, render_record
from gateway.protocol.errors import AMTPError, Code
from gateway.protocol.timestamp import render_timestamp
from gateway.receive.openapi_operations import SHOW_CAPABILITIES
from gateway.route.decide import Temporary
from gateway.route.directory import Directory, Known


class CapabilityDoor:
    """The endpoint for the capabilities of domains. It needs a key, since it makes DNS queries."""

    def __init__(
        self,
        *,
        directory: Directory,
        authenticator: Authenticator,
        domains: Collection[str],
        published: Capabilities,
        lookups: Rates,
    ) -> None:
        """`published` holds the capabilities of this gateway's own `domains`."""
        self._directory = directory
        self._authenticator = authenticator
        self._domains = frozenset(domains)
        self._published = published
        self._lookups = lookups

    def routes(self) -> list[Route]:
        return [Route("GET", "/v1/capabilities/{domain}", self.get, operation=SHOW_CAPABILITIES)]

    async def get(self, request: Request) -> Answer:
        caller = await self._authenticator.caller(request)
        if not (caller.known or caller.development):
            raise AMTPError(Code.AUTHENTICATION_FAILED, "Present a key: Authorization: Bearer and the key.")
        domain = parse_domain(request.params["domain"], "domain")
        if domain in self._domains:
            return answer_json(_told(domain, Speaks(self._published), None))
        if self._directory.known(domain) is None:
            self._lookups.take(caller.name or "development")
        match await self._directory.lookup(domain):
            case Speaks() as speaks:
                return answer_json(_told(domain, speaks, self._directory.known(domain)))
            case Silent():
                raise AMTPError(Code.NOT_FOUND, f"{domain} publishes no AMTP gateway.")
            case Broken(reason):
                raise AMTPError(Code.RECIPIENT_UNAVAILABLE, f"The record of {domain} is broken: {reason}.")
            case Temporary() as temporary:
                raise AMTPError(Code.TEMPORARY_FAILURE, temporary.told(domain))


def _told(domain: str, speaks: Speaks, known: Known | None) -> dict[str, Any]:
    capabilities = speaks.capabilities
    asked_at, good_until = (known.asked_at, known.good_until) if known else (None, None)
    return {
        "domain": domain,
        "version": "1.0",
        "gateway": capabilities.gateway_url,
        "auth": list(capabilities.auth),
        "max_size": capabilities.max_size,
        "features": sorted(capabilities.features),
        "record": render_record(capabilities),
        "warnings": list(speaks.warnings),
        "stale": known is not None and known.stale,
        "discovered_at": render_timestamp(asked_at) if asked_at else None,
        "expires_at": render_timestamp(good_until) if good_until else None,
    }
