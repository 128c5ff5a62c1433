"""The configuration from amtp.yaml and AMTP_… variables, as frozen values.

`load` returns a whole configuration or raises a ConfigError with all faults at once. Constructors elsewhere get
their values from here.
"""
# ruff: noqa: RUF009 - setting(), section() and table() return fields, as dataclasses.field does

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from gateway.config import file as config_file
from gateway.config.fields import ConfigReader, keys_of, section, setting, table
from gateway.config.file import BadFile, parse_yaml, read_text
from gateway.config.sections import (
    AttachmentSettings,
    DatabaseSettings,
    DnsSettings,
    InboxSettings,
    LimitSettings,
    ListenerSettings,
    LogSettings,
    OutboundSettings,
    PeerSettings,
    ProxySettings,
    QueueSettings,
    RetentionSettings,
    TlsSettings,
    domain,
)
from gateway.config.values import HostPort
from gateway.journal.log_writer import escaped

# AMTP_ variables that don't configure a gateway: a client's, an installation's, and the tests'.
OTHER_VARIABLES = frozenset(
    {"AMTP_CONFIG", "AMTP_PG_BINDIR", "AMTP_GATEWAY", "AMTP_KEY", "AMTP_ADMIN_KEY", "AMTP_PUSH_SECRET"}
)
OTHER_PREFIX = "AMTP_TEST_"

FAULT_CHARACTERS_MAX = 500  # a fault quotes a key or value, of any length
MEBIBYTE = 1_048_576
ANNOTATIONS_BYTES = MEBIBYTE  # of an answer, beside the largest message
Role = Literal["public", "agents", "admin", "all"]


class ConfigError(Exception):
    """A configuration with faults; `faults` has a line for each, with place and remedy."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = [escaped(fault[:FAULT_CHARACTERS_MAX]) for fault in sorted(faults, key=_line)]
        super().__init__("\n".join(self.faults))


def _line(fault: str) -> int:
    match = re.search(r":([0-9]+): ", fault)
    return int(match[1]) if match else 0


@dataclass(frozen=True, slots=True)
class Config:
    development: bool = setting(False, "No keys needed from this machine. Loopback only.")
    domains: tuple[str, ...] = setting((), "Domains served here. Required.", check=domain)
    hostname: str = setting("", "This gateway's name in Via; default: the first domain.", check=domain)
    data: Path = setting(Path("data"), "Folder for the embedded database and key files.")
    listen: tuple[ListenerSettings, ...] = setting((), "Listeners.")
    database: DatabaseSettings = section(DatabaseSettings, "The database.")
    tls: TlsSettings = section(
        TlsSettings, "For listeners with `tls: true`. Replaced files are reloaded without a restart."
    )
    proxy: ProxySettings = section(ProxySettings, "A reverse proxy in front.")
    limits: LimitSettings = section(LimitSettings, "Limits of the HTTP server and of senders.")
    retention: RetentionSettings = section(RetentionSettings, "How long data is kept.")
    queue: QueueSettings = section(QueueSettings, "The queue of deliveries.")
    inbox: InboxSettings = section(InboxSettings, "How agents fetch their mail.")
    attachments: AttachmentSettings = section(AttachmentSettings, "Files attached to messages.")
    dns: DnsSettings = section(DnsSettings, "How gateways of other domains are found.")
    peers: dict[str, PeerSettings] = table(
        "Gateways of other domains, used instead of the DNS.", key_check=domain
    )
    outbound: OutboundSettings = section(OutboundSettings, "Requests this gateway makes.")
    log: LogSettings = section(LogSettings, "The log on stderr.")

    @property
    def certified_host(self) -> str:
        """Returns the host that our certificate must be valid for; empty if no public listener uses it."""
        seen = any(listener.tls and listener.serves("public") for listener in self.listen)
        return self.hostname if seen else ""


DEVELOPMENT_LISTEN = (ListenerSettings(HostPort("127.0.0.1", 8080), roles=("all",)),)
PRODUCTION_LISTEN = (
    ListenerSettings(HostPort("127.0.0.1", 8080), roles=("public", "agents")),
    ListenerSettings(HostPort("127.0.0.1", 8025), roles=("admin",)),
)


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """Loads the configuration; raises one ConfigError with all its faults."""
    reader = ConfigReader(environ, path.parent if path else Path(), keys_of(Config))
    try:
        root = _tree(path, reader.faults)
    except BadFile as refused:
        raise ConfigError([*reader.faults, str(refused)]) from None
    reader.override(root, Config, lambda name: name in OTHER_VARIABLES or name.startswith(OTHER_PREFIX))
    config = complete(reader.section(Config, root, ""))
    if "data" not in reader.where:
        config = replace(config, data=reader.folder / config.data)
    for keys, rule in _RULES:
        if not any(reader.spoiled(key) for key in keys) and (text := rule(config)):
            reader.fault(keys[0], text)
    if reader.faults:
        raise ConfigError(reader.faults)
    return config


def _tree(path: Path | None, faults: list[str]) -> config_file.Mapping:
    node = parse_yaml(read_text(path), str(path), faults) if path else config_file.Mapping()
    if not isinstance(node, config_file.Mapping):
        raise BadFile(f"{node.where}: must be a mapping of keys to values, such as `domains: [example.com]`")
    return node


def complete(config: Config) -> Config:
    """Fills in the defaults that follow from other settings."""
    domains = tuple(dict.fromkeys(config.domains)) or (("localhost",) if config.development else ())
    return replace(
        config,
        domains=domains,
        hostname=config.hostname or (domains[0] if domains else ""),
        listen=config.listen or (DEVELOPMENT_LISTEN if config.development else PRODUCTION_LISTEN),
    )


def _no_domain(config: Config) -> str:
    return (
        "" if config.domains else "is missing; name the domains whose agents live here, such as [example.com]"
    )


def _exposed_development(config: Config) -> str:
    exposed = [str(listener.address) for listener in config.listen if not listener.address.loopback]
    if not config.development or not exposed:
        return ""
    return f"has {exposed[0]}, but development answers on loopback only; turn it off or listen on 127.0.0.1"


def _address_twice(config: Config) -> str:
    addresses = [str(listener.address) for listener in config.listen if listener.address.port]
    twice = [address for address in addresses if addresses.count(address) > 1]
    return f"has {twice[0]} twice; give it once, with all its roles" if twice else ""


def _tls_without_certificate(config: Config) -> str:
    if config.tls.certificate_file or not any(listener.tls for listener in config.listen):
        return ""
    return "is missing, but a listener says tls: true; name the certificate and its key"


def _half_pair(config: Config) -> str:
    return "and tls.key_file belong together; name both" if _half(config.tls) else ""


def _half(part: TlsSettings | PeerSettings) -> bool:
    return (part.certificate_file is None) != (part.key_file is None)


def _peer_half_pair(config: Config) -> str:
    halves = [name for name, peer in config.peers.items() if _half(peer)]
    return f"has {halves[0]} with one of certificate_file and key_file; name both" if halves else ""


def _peer_is_local(config: Config) -> str:
    local = sorted(config.peers.keys() & set(config.domains))
    return f"has {local[0]}, which is one of our own domains; remove it from one of them" if local else ""


def _peer_in_clear(config: Config) -> str:
    clear = [
        name
        for name, peer in config.peers.items()
        if peer.gateway.startswith("http:") and not peer.plain_http
    ]
    return f"has {clear[0]} with an http:// gateway; use https://, or say plain_http: true" if clear else ""


def _lease_too_long(config: Config) -> str:
    longer = config.inbox.lease_seconds_default > config.inbox.lease_seconds_max
    return "is longer than inbox.lease_seconds_max; lower it or raise the other" if longer else ""


def _keys_too_short(config: Config) -> str:
    # If a key were forgotten while its message is still retried, a repeat would be accepted as a second message.
    short = config.retention.keys_days < config.queue.horizon_days
    return "is less than queue.horizon_days; keys outlive every attempt" if short else ""


def _bodies_too_small(config: Config) -> str:
    return _share_too_small(config.limits, config.limits.bodies_in_flight_bytes, 0)


def _unsent_too_small(config: Config) -> str:
    return _share_too_small(config.limits, config.limits.unsent_bytes, ANNOTATIONS_BYTES)


def _share_too_small(limits: LimitSettings, size: int, more: int) -> str:
    percent = min(limits.address_share_percent, limits.owner_share_percent, limits.unproven_share_percent)
    share = size * percent // 100
    if share >= limits.body_bytes + more:
        return ""
    about = f" and {more} bytes around it" if more else ""
    return (
        f"leaves a client with the smallest share ({percent} %) only {share} bytes, less than limits.body_bytes"
        f"{about}, so that the largest message never fits; raise it or the share"
    )


def _attachments_too_small(config: Config) -> str:
    small = config.attachments.bytes_together < config.attachments.bytes_each
    return (
        "is less than attachments.bytes_each, so that the largest one never fits; raise it" if small else ""
    )


# The keys of a rule (it is skipped if one of them has a fault; its own fault names the first), and the rule.
_SHARES = (
    "limits.body_bytes",
    "limits.address_share_percent",
    "limits.owner_share_percent",
    "limits.unproven_share_percent",
)
_RULES: tuple[tuple[tuple[str, ...], Callable[[Config], str]], ...] = (
    (("domains", "development"), _no_domain),
    (("listen", "development"), _exposed_development),
    (("listen",), _address_twice),
    (("tls.certificate_file", "listen"), _tls_without_certificate),
    (("tls.certificate_file", "tls.key_file"), _half_pair),
    (("peers",), _peer_half_pair),
    (("peers", "domains"), _peer_is_local),
    (("peers",), _peer_in_clear),
    (("inbox.lease_seconds_default", "inbox.lease_seconds_max"), _lease_too_long),
    (("retention.keys_days", "queue.horizon_days"), _keys_too_short),
    (("limits.bodies_in_flight_bytes", *_SHARES), _bodies_too_small),
    (("limits.unsent_bytes", *_SHARES), _unsent_too_small),
    (("attachments.bytes_together", "attachments.bytes_each"), _attachments_too_small),
)

# The settings that a reload applies; the others are read once at the start.
RELOADABLE: Mapping[str, frozenset[str] | None] = {  # None: the section as a whole
    "peers": None,
    "retention": None,
    "queue": frozenset({"delay_report_hours"}),
    "log": frozenset({"format", "level"}),
    "proxy": frozenset({"trusted"}),
    "limits": frozenset(
        {
            "connections",
            "requests_in_admission",
            "bodies_in_flight_bytes",
            "unsent_bytes",
            "waiting_requests",
            "uploads",
            "downloads",
            "fetches",
            "address_share_percent",
            "owner_share_percent",
            "unproven_share_percent",
            "unproven_messages_per_second",
            "unproven_bytes_per_second",
            "unproven_stored_bytes",
            "unproven_inbox_bytes",
            "unproven_disk_free_bytes",
            "batch_messages",
            "batch_bytes",
            "waiting_messages",
            "schedules_per_agent",
            "lookups_per_minute",
            "webhook_challenges_per_minute",
            "head_seconds",
            "body_seconds",
            "bytes_per_second_min",
            "keep_alive_seconds",
        }
    ),
}


def reloadable(old: Config, new: Config) -> tuple[Config, list[str]]:
    """Returns the configuration with reloadable changes applied, and a line for each changed key."""
    taken = {}
    for name, keys in RELOADABLE.items():
        after = getattr(new, name)
        changed = {key: getattr(after, key) for key in keys or ()}
        taken[name] = after if keys is None else replace(getattr(old, name), **changed)
    lines = []
    for key in changed_keys(old, new):
        part, _, rest = key.partition(".")
        keys = RELOADABLE.get(part, frozenset())
        in_effect = keys is None or rest in keys
        lines.append(f"{key}: {'in effect now' if in_effect else 'changed; takes effect after a restart'}")
    return replace(old, **taken), lines


def changed_keys(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Returns the dotted keys whose values differ."""
    if is_dataclass(old) and type(old) is type(new) and not isinstance(old, HostPort):
        pairs = [(field.name, getattr(old, field.name), getattr(new, field.name)) for field in fields(old)]
    elif isinstance(old, dict) and isinstance(new, dict):
        pairs = [(name, old.get(name), new.get(name)) for name in sorted(old.keys() | new.keys())]
    else:
        return [] if old == new else [prefix]
    return [key for name, a, b in pairs for key in changed_keys(a, b, f"{prefix}.{name}" if prefix else name)]
