"""A destination: the gateway that takes messages for a domain, as a courier needs to know it."""

from dataclasses import dataclass

from gateway.protocol.discovery import Capabilities


@dataclass(frozen=True, slots=True)
class Destination:
    domain: str
    gateway_url: str  # without a trailing slash; `/v1/…` is appended
    host: str
    port: int
    path: str
    max_size: int
    features: frozenset[str]

    def url(self, path: str) -> str:
        """Returns the URL of a path: `url("/v1/messages")`."""
        return self.gateway_url + path


def destination_of(domain: str, capabilities: Capabilities) -> Destination:
    gateway = capabilities.gateway
    return Destination(
        domain,
        capabilities.gateway_url,
        gateway.host,
        gateway.port,
        gateway.path,
        capabilities.max_size,
        capabilities.features,
    )
