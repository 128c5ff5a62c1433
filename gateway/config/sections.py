"""The sections of the configuration: every setting with its type, default, range and meaning."""
# ruff: noqa: RUF009 - setting() returns a field, as dataclasses.field does

from __future__ import annotations

import re
from dataclasses import MISSING, dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from gateway.config.fields import setting
from gateway.config.values import HostPort, Network, Secret
from gateway.protocol.address import DOMAIN_REMEDY, parse_domain
from gateway.protocol.errors import AMTPError

MEBIBYTE = 1_048_576
Role = Literal["public", "agents", "admin", "all"]


def domain(text: str) -> str:
    try:
        return parse_domain(text, "it")
    except AMTPError:
        raise ValueError(f"is not a domain: {DOMAIN_REMEDY}") from None


def _database_url(text: str) -> str:
    if urlsplit(text).scheme not in ("postgresql", "postgres"):
        raise ValueError("must start with postgresql://, such as postgresql://amtp@db.internal/amtp")
    return text


def _gateway_url(text: str) -> str:
    url = urlsplit(text)
    if url.scheme not in ("https", "http") or not url.hostname:
        raise ValueError("must be an https:// URL with a host")
    if url.username is not None or url.query or url.fragment:
        raise ValueError("must have no user info, query or fragment")
    return text.rstrip("/")


def _nameserver(text: str) -> str:
    try:
        ip_address(HostPort.parse(text, port=53).host)
    except ValueError:
        raise ValueError("must be an address such as 127.0.0.1 or [::1]:5353, no name") from None
    return text


def _long_secret(text: str) -> str:
    if len(text) < 16:
        raise ValueError(
            "is shorter than 16 characters; make a longer one, such as `openssl rand -base64 32` prints"
        )
    return text


def _https_url(text: str) -> str:
    if not text.startswith("https://"):
        raise ValueError("must begin with https://, such as https://amtp.example.com")
    return _gateway_url(text)


def _media_type(text: str) -> str:
    if not re.fullmatch(r"[0-9a-z!#$&^_.+-]+/(?:\*|[0-9a-z!#$&^_.+-]+)", text):
        raise ValueError("must be a media type in lower case, such as application/pdf or image/*")
    return text


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    url: Secret | None = setting(
        None, "URL of a Postgres 15 to 18; absent: an embedded one in `data`.", check=_database_url
    )
    pool_size: int = setting(8, "Connections in the pool of each process.", low=3, high=500)
    statement_timeout_seconds: int = setting(30, "Longer statements are cancelled.", low=1, high=3600)
    pgbouncer: Literal["auto", "on", "off"] = setting(
        "auto", "Whether it is behind PgBouncer in transaction mode."
    )


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    address: HostPort = setting(MISSING, "host:port to listen on.")
    tls: bool = setting(False, "Speak TLS 1.3 with the certificate of `tls`.")
    roles: tuple[Role, ...] = setting(("public", "agents"), "Endpoints served here.")

    def serves(self, role: Role) -> bool:
        return role in self.roles or "all" in self.roles


@dataclass(frozen=True, slots=True)
class TlsSettings:
    certificate_file: Path | None = setting(None, "Certificate chain, PEM.", readable=True)
    key_file: Path | None = setting(None, "Its private key, PEM.", readable=True)
    client_ca_file: Path | None = setting(
        None, "Authorities whose client certificates are recognised, PEM.", readable=True
    )


@dataclass(frozen=True, slots=True)
class ProxySettings:
    trusted: tuple[Network, ...] = setting((), "Networks of proxies whose X-Forwarded-For is believed.")


@dataclass(frozen=True, slots=True)
class LimitSettings:
    body_bytes: int = setting(
        10 * MEBIBYTE, "Largest body of a message or batch.", low=1024, high=100 * MEBIBYTE
    )
    connections: int = setting(
        10_000, "Connections open at once, each listener and process.", low=1, high=1_000_000
    )
    requests_in_admission: int = setting(1024, "Requests handled at once; above it 503.", low=1, high=10_000)
    bodies_in_flight_bytes: int = setting(
        256 * MEBIBYTE, "Bytes of bodies in memory; above it 503.", low=MEBIBYTE, high=2**40
    )
    unsent_bytes: int = setting(
        128 * MEBIBYTE,
        "Bytes of answers and streams that clients have not read; above it the slowest is cut off.",
        low=MEBIBYTE,
        high=2**40,
    )
    waiting_requests: int = setting(
        8192, "Streams, and requests waiting for mail or a reply, each process.", low=1, high=1_000_000
    )
    uploads: int = setting(32, "Uploads at once, each process.", low=1, high=10_000)
    downloads: int = setting(256, "Downloads at once, each process.", low=1, high=100_000)
    fetches: int = setting(32, "Files fetched from other hosts at once, each process.", low=1, high=10_000)
    address_share_percent: int = setting(
        10, "Share of each limit above for one unproven address.", low=1, high=100
    )
    owner_share_percent: int = setting(25, "Share for one agent, key or peer.", low=1, high=100)
    unproven_share_percent: int = setting(50, "Share for all unproven addresses together.", low=1, high=100)
    unproven_messages_per_second: int = setting(
        200, "Messages of all unproven senders, averaged over a minute; above it 429.", low=1, high=1_000_000
    )
    unproven_bytes_per_second: int = setting(
        2 * MEBIBYTE, "Bytes of their messages, likewise.", low=1024, high=2**40
    )
    unproven_stored_bytes: int = setting(
        2048 * MEBIBYTE, "Bytes stored of their unacknowledged mail; above it 503.", low=MEBIBYTE, high=2**50
    )
    unproven_inbox_bytes: int = setting(
        256 * MEBIBYTE, "Bytes stored of it in one inbox; above it 503.", low=MEBIBYTE, high=2**50
    )
    unproven_disk_free_bytes: int = setting(
        2048 * MEBIBYTE,
        "Free bytes on disk below which it is refused; embedded database only.",
        low=0,
        high=2**50,
    )
    batch_messages: int = setting(256, "Messages in one commit.", low=1, high=256)
    batch_bytes: int = setting(8 * MEBIBYTE, "Bytes in one commit.", low=1024, high=64 * MEBIBYTE)
    waiting_messages: int = setting(
        4096, "Messages waiting for a commit; above it 503.", low=1, high=1_000_000
    )
    lookups_per_minute: int = setting(
        60, "DNS look-ups of other domains for one caller, each process.", low=1, high=1_000_000
    )
    webhook_challenges_per_minute: int = setting(
        30, "Challenges and tests posted to webhook URLs for one owner, each process.", low=1, high=1_000_000
    )
    schedules_per_agent: int = setting(100, "Repeated messages of one agent.", low=0, high=100_000)
    head_seconds: float = setting(10.0, "Deadline for a request's head.", low=0.1, high=600)
    body_seconds: float = setting(60.0, "How long a body may stay behind its least rate.", low=0.1, high=600)
    bytes_per_second_min: int = setting(
        16_384, "Least rate of sending a body and of reading an answer.", low=1, high=MEBIBYTE
    )
    keep_alive_seconds: float = setting(75.0, "Idle time before a connection is closed.", low=0.1, high=3600)


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    messages_days: int = setting(30, "Messages whose deliveries are finished.", low=1, high=3650)
    keys_days: int = setting(14, "Idempotency keys.", low=1, high=365)
    acknowledged_days: int = setting(7, "Acknowledged inbox entries.", low=0, high=3650)
    audit_days: int = setting(365, "The audit trail.", low=1, high=36_500)
    attempts_days: int = setting(30, "The history of delivery attempts.", low=1, high=3650)


@dataclass(frozen=True, slots=True)
class QueueSettings:
    concurrency: int = setting(256, "Deliveries at once, each process.", low=1, high=10_000)
    lease_seconds: int = setting(
        30, "Lease of a delivery; another worker takes it over after this.", low=25, high=3600
    )
    attempts_max: int = setting(168, "Attempts before a delivery fails.", low=1, high=1000)
    horizon_days: int = setting(7, "A delivery fails this long after it was accepted.", low=1, high=30)
    delay_report_hours: int = setting(4, "Hours after which a sender is told of a delay.", low=1, high=168)
    per_destination_window_max: int = setting(
        64, "Largest window: requests at once to one destination.", low=1, high=1000
    )


@dataclass(frozen=True, slots=True)
class InboxSettings:
    lease_seconds_default: int = setting(60, "Lease of a fetch that asks for no length.", low=1, high=86_400)
    lease_seconds_max: int = setting(3600, "Longest lease a fetch may ask for.", low=1, high=86_400)
    poison_lapses: int = setting(
        10, "Leases that ran out before an entry becomes a dead letter.", low=2, high=1000
    )
    wait_seconds_max: int = setting(60, "Longest wait for mail in one request.", low=1, high=600)
    streams: int = setting(
        16, "Streams of one inbox, each process; beyond it the oldest ends.", low=1, high=10_000
    )


@dataclass(frozen=True, slots=True)
class AttachmentSettings:
    count: int = setting(20, "Attachments of one message.", low=0, high=100)
    bytes_each: int = setting(256 * MEBIBYTE, "Largest attachment.", low=1024, high=2**40)
    bytes_together: int = setting(1024 * MEBIBYTE, "All attachments of one message.", low=1024, high=2**40)
    types: tuple[str, ...] = setting((), "Media types accepted; none: all.", check=_media_type)
    store: Literal["auto", "file", "database"] = setting(
        "auto", "Store of large uploads; auto: files in `data` with the embedded database, else rows."
    )
    url: str = setting(
        "", "URL at which others fetch uploads; default: https:// and the hostname.", check=_https_url
    )
    unsent_bytes: int = setting(
        1024 * MEBIBYTE, "Uploads of one agent that no message names yet.", low=4096, high=2**40
    )
    agent_bytes: int = setting(
        10 * 1024 * MEBIBYTE, "All uploads of one agent, sent or not.", low=4096, high=2**50
    )
    cache_bytes: int = setting(
        0, "Cache in `data` of files fetched from other hosts; 0: none.", low=0, high=2**40
    )


@dataclass(frozen=True, slots=True)
class DnsSettings:
    nameservers: tuple[str, ...] = setting(
        (), "Name servers, each address[:port]; none: the system's.", check=_nameserver
    )
    timeout_seconds: float = setting(5.0, "Timeout of one query.", low=0.1, high=60)


@dataclass(frozen=True, slots=True)
class PeerSettings:
    gateway: str = setting(MISSING, "Its https:// URL.", check=_gateway_url)
    plain_http: bool = setting(False, "Allow an http:// URL, for a network that nobody else reads.")
    features: tuple[str, ...] = setting((), "Its features, as in a DNS record: batch, ids.")
    bearer: Secret | None = setting(None, "Key we present to it.")
    certificate_file: Path | None = setting(None, "Certificate we present to it, PEM.", readable=True)
    key_file: Path | None = setting(None, "Its private key, PEM.", readable=True)
    ca_file: Path | None = setting(
        None, "The only authorities trusted for its certificate; none: the usual ones.", readable=True
    )
    proving_key: Secret | None = setting(
        None, "Key that proves the domain when presented to us.", check=_long_secret
    )
    accept_unproven: bool = setting(
        False, "Accept mail in its name without that key, as unproven; otherwise 401."
    )


@dataclass(frozen=True, slots=True)
class OutboundSettings:
    allow_networks: tuple[Network, ...] = setting((), "Private networks that requests may go to; for tests.")
    plain_webhooks: bool = setting(False, "Allow http:// URLs of webhooks; for tests.")
    ca_file: Path | None = setting(None, "Authorities to trust beside the system's, PEM.", readable=True)
    connect_seconds: float = setting(10.0, "Timeout to connect, TLS included.", low=0.1, high=120)
    answer_bytes: int = setting(MEBIBYTE, "Largest answer that is read.", low=1024, high=100 * MEBIBYTE)
    requests: int = setting(1024, "Requests at once, each process.", low=1, high=100_000)
    connections_kept: int = setting(
        2048,
        "Idle connections kept, each process; one for each busy peer.",
        low=0,
        high=100_000,
    )


@dataclass(frozen=True, slots=True)
class LogSettings:
    format: Literal["auto", "text", "json"] = setting("auto", "auto is text on a terminal, else JSON.")
    level: Literal["debug", "info", "warning", "error"] = setting("info", "Lowest level written.")
