"""Routing by configuration: name servers, peers known without DNS, the records of our own domains."""

from gateway.config.sections import PeerSettings
from gateway.config.settings import Config, ConfigError
from gateway.config.values import HostPort
from gateway.protocol.discovery import Capabilities, parse_gateway
from gateway.protocol.identifiers import FEATURE
from gateway.protocol.url import BadUrl, Url, parse_url
from gateway.route.dns import PORT, Nameserver

FEATURES = frozenset({"batch", FEATURE})  # what this gateway can do beyond the draft
PORT_PUBLIC = 443


def nameservers_of(config: Config) -> tuple[Nameserver, ...]:
    """Returns the name servers to ask; none means the system's."""
    places = [HostPort.parse(text, port=PORT) for text in config.dns.nameservers]
    return tuple(Nameserver(place.host, place.port) for place in places)


def static_peers(config: Config) -> dict[str, Capabilities]:
    """Returns the configured gateways by domain; the DNS is not asked about them."""
    return {domain: _capabilities(domain, peer) for domain, peer in config.peers.items()}


def plain_domains(config: Config) -> frozenset[str]:
    """Returns the domains whose gateways may be reached without TLS."""
    return frozenset(domain for domain, peer in config.peers.items() if peer.plain_http)


def published(config: Config) -> Capabilities:
    """Returns what the record of each of our domains has to say.

    The gateway is found under its hostname, at the port of its public TLS listener. Without one a proxy in
    front ends the TLS, at the usual port.
    """
    ports = [each.address.port for each in config.listen if each.tls and each.serves("public")]
    return Capabilities(
        gateway=Url("https", config.hostname, ports[0] if ports else PORT_PUBLIC),
        auth=("cert",) if config.tls.client_ca_file else (),
        max_size=config.limits.body_bytes,
        features=FEATURES,
    )


def uploads_base(config: Config) -> Url:
    """Returns the base URL under which others fetch uploads: as configured, else the gateway's own."""
    url = parse_url(config.attachments.url) if config.attachments.url else published(config).gateway
    if isinstance(url, BadUrl):
        raise ConfigError([f"attachments.url {url.reason}"])
    return url


def _capabilities(domain: str, peer: PeerSettings) -> Capabilities:
    gateway = parse_gateway(peer.gateway, plain=peer.plain_http)
    if isinstance(gateway, BadUrl):
        raise ConfigError([f"peers.{domain}.gateway {gateway.reason}"])
    return Capabilities(gateway, features=frozenset(peer.features))
