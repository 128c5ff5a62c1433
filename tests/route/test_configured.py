"""What configuration says about ways."""

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from gateway.config.sections import DnsSettings, LimitSettings, ListenerSettings, PeerSettings, TlsSettings
from gateway.config.settings import Config, ConfigError, complete
from gateway.config.values import HostPort
from gateway.protocol.discovery import Speaks, parse_record, render_record
from gateway.route.configured import nameservers_of, plain_domains, published, static_peers
from gateway.route.dns import Nameserver


def configured(**changes: Any) -> Config:
    return complete(replace(Config(), domains=("acme.test",), **changes))


def test_name_servers_have_the_usual_port_unless_they_name_another() -> None:
    config = configured(dns=replace(DnsSettings(), nameservers=("192.0.2.1", "[2001:db8::1]:5353")))
    assert nameservers_of(config) == (Nameserver("192.0.2.1", 53), Nameserver("2001:db8::1", 5353))


def test_a_configured_peer_is_known_without_dns() -> None:
    config = configured(
        peers={"b.test": PeerSettings(gateway="https://10.0.0.7:8443/in", features=("batch",))}
    )
    [(domain, capabilities)] = static_peers(config).items()
    assert (domain, capabilities.gateway_url) == ("b.test", "https://10.0.0.7:8443/in")
    assert capabilities.gateway.literal == ip_address("10.0.0.7")
    assert capabilities.features == {"batch"}
    assert plain_domains(config) == frozenset()


def test_a_peer_is_reached_without_tls_only_where_configuration_says_so() -> None:
    config = configured(peers={"b.test": PeerSettings(gateway="http://b.internal:8080", plain_http=True)})
    assert static_peers(config)["b.test"].gateway_url == "http://b.internal:8080"
    assert plain_domains(config) == {"b.test"}


def test_a_peer_whose_url_cannot_be_used_is_a_fault_of_the_configuration() -> None:
    with pytest.raises(ConfigError, match=r"peers\.b\.test\.gateway"):
        static_peers(configured(peers={"b.test": PeerSettings(gateway="https://0x7f.1/")}))


PUBLIC_TLS = ListenerSettings(HostPort("0.0.0.0", 8443), tls=True, roles=("public",))


@pytest.mark.parametrize(
    ("changes", "record"),
    [
        ({}, "v=amtp1;gateway=https://acme.test;max-size=10485760;features=batch,ids"),
        (
            {"hostname": "amtp.acme.test", "listen": (replace(PUBLIC_TLS, address=HostPort("::", 443)),)},
            "v=amtp1;gateway=https://amtp.acme.test;max-size=10485760;features=batch,ids",
        ),
        (
            {"listen": (PUBLIC_TLS,), "limits": replace(LimitSettings(), body_bytes=5000)},
            "v=amtp1;gateway=https://acme.test:8443;max-size=5000;features=batch,ids",
        ),
        (
            {
                "listen": (replace(PUBLIC_TLS, roles=("admin",)),),
                "tls": TlsSettings(client_ca_file=Path("ca.pem")),
            },
            "v=amtp1;gateway=https://acme.test;auth=cert;max-size=10485760;features=batch,ids",
        ),
    ],
)
def test_our_record_follows_from_the_configuration_and_can_be_read(
    changes: dict[str, Any], record: str
) -> None:
    capabilities = published(configured(**changes))
    assert render_record(capabilities) == record
    assert parse_record(record) == Speaks(capabilities)
