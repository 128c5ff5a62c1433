"""`amtp domain`: prints the DNS records our domains need, and probes another domain's gateway."""

import asyncio
import os
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography import x509

from gateway.cli.printable import plain, plain_json
from gateway.config.file import find_file
from gateway.config.settings import Config, load
from gateway.deliver.peer import HEADERS, PROBE_BYTES_MAX, PROBE_SECONDS, Access, access_of, trouble
from gateway.net.dns_answer import Absent, DnsAnswer, DnsFailure, Records
from gateway.net.outbound import Greeting, Outbound, OutboundError
from gateway.net.tls import client_context
from gateway.protocol.address import parse_domain
from gateway.protocol.discovery import Broken, Capabilities, Silent, Speaks, parse_gateway, render_record
from gateway.protocol.url import BadUrl, Url
from gateway.route.configured import nameservers_of, published, static_peers
from gateway.route.decide import Lookup, Temporary, decide
from gateway.route.dns import Dns

TTL_SECONDS = 3600  # recommended; changes take effect within this time
STRING_CHARACTERS_MAX = 255  # of one string in a TXT record
RENEWAL_DAYS = 14  # a certificate with fewer left should have been renewed

app = typer.Typer(name="domain", help="DNS records, of our domains and of others.", no_args_is_help=True)

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="Default: $AMTP_CONFIG, else ./amtp.yaml if it exists.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


@app.command()
def record(
    gateway: Annotated[
        str | None, typer.Option(help="The https:// URL at which others reach us; default: the hostname's.")
    ] = None,
    config_file: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Print the DNS records that this gateway's domains need."""
    config = load(find_file(config_file, os.environ), os.environ)
    capabilities = _at(published(config), gateway)
    value = render_record(capabilities)
    if as_json:
        rows = [
            {"name": f"_amtp.{domain}", "type": "TXT", "ttl": TTL_SECONDS, "value": value}
            for domain in config.domains
        ]
        typer.echo(plain_json(rows))
        return
    for domain in config.domains:
        typer.echo(f"_amtp.{domain}. {TTL_SECONDS} IN TXT {_quoted(value)}")
    host, port = capabilities.gateway.host, capabilities.gateway.port
    typer.echo(f"; {host} needs A and AAAA records with this gateway's public addresses, where port {port}")
    typer.echo(f"; answers with TLS 1.3 and a certificate that is valid for {host}.")


def _at(capabilities: Capabilities, gateway: str | None) -> Capabilities:
    if gateway is None:
        return capabilities
    url = parse_gateway(gateway)
    if isinstance(url, BadUrl):
        raise typer.BadParameter(f"it {url.reason}", param_hint="--gateway")
    return Capabilities(url, capabilities.auth, capabilities.max_size, capabilities.features)


def _quoted(value: str) -> str:
    """Returns a value as the strings of a TXT record in a zone file."""
    starts = range(0, len(value), STRING_CHARACTERS_MAX)
    return " ".join(f'"{value[start : start + STRING_CHARACTERS_MAX]}"' for start in starts)


@dataclass
class Found:
    """The result of probing a domain."""

    domain: str
    records: list[str] = field(default_factory=list)
    gateway: str | None = None
    max_size: int | None = None
    features: list[str] = field(default_factory=list)
    auth: list[str] = field(default_factory=list)
    kept_seconds: int | None = None
    addresses: list[str] = field(default_factory=list)
    tls_version: str | None = None
    subject: str | None = None
    names: list[str] = field(default_factory=list)
    issuer: str | None = None
    expires_at: str | None = None
    http_status: int | None = None
    warnings: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


@app.command()
def probe(
    domain: Annotated[str, typer.Argument(help="The domain to look at.")],
    config_file: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show what a domain publishes, how its gateway answers, and what is wrong."""
    config = load(find_file(config_file, os.environ), os.environ)
    found = asyncio.run(look_at(parse_domain(domain, "DOMAIN"), config, datetime.now(UTC)))
    if as_json:
        typer.echo(plain_json(asdict(found)))
    else:
        _tell(found)
    if found.faults:
        raise typer.Exit(1)


async def look_at(domain: str, config: Config, now: datetime) -> Found:
    """Asks the DNS and then the gateway, without caches."""
    found = Found(domain)
    dns = Dns(nameservers_of(config), question_seconds=config.dns.timeout_seconds)
    peer = static_peers(config).get(domain)
    if peer is not None:
        found.warnings.append("the configuration names this peer; the DNS is not asked for it")
    result = Speaks(peer) if peer is not None else await _look_up(found, dns, now)
    if not isinstance(result, Speaks):
        found.faults.append(_silence(domain, result))
        return found
    _note_capabilities(found, result)
    if domain in config.domains and render_record(result.capabilities) != render_record(published(config)):
        found.warnings.append(f"this gateway would publish: {render_record(published(config))}")
    outbound = Outbound(
        dns.addresses,
        client_context(more=config.outbound.ca_file),
        agent=HEADERS["User-Agent"],
        allow=config.outbound.allow_networks,
        connect_seconds=config.outbound.connect_seconds,
    )
    access = access_of(config.peers[domain], config.outbound.ca_file) if peer else Access()
    try:
        _note_addresses(
            found, result.capabilities.gateway, await dns.addresses(result.capabilities.gateway.host)
        )
        await _look_inside(found, outbound, result.capabilities.gateway, access, now)
    except OutboundError as error:
        found.faults.append(trouble(error))
    finally:
        await outbound.close()
    return found


async def _look_up(found: Found, dns: Dns, now: datetime) -> Lookup:
    answer = await dns.texts(f"_amtp.{found.domain}")
    if isinstance(answer, Records):
        found.records = sorted(answer.values)
    decision = decide(found.domain, answer, None, now)
    found.kept_seconds = decision.kept_seconds
    return decision.result


def _silence(domain: str, result: Silent | Broken | Temporary) -> str:
    match result:
        case Silent():
            return f"no TXT record at _amtp.{domain} says v=amtp1: nobody can send AMTP messages there"
        case Broken(reason):
            return f"the TXT record at _amtp.{domain} can't be used: {reason}"
        case Temporary(reason):
            return f"the DNS could not be asked: {reason}"


def _note_capabilities(found: Found, speaks: Speaks) -> None:
    capabilities = speaks.capabilities
    found.gateway, found.max_size = capabilities.gateway_url, capabilities.max_size
    found.features, found.auth = sorted(capabilities.features), list(capabilities.auth)
    found.warnings += speaks.warnings


def _note_addresses(found: Found, gateway: Url, answer: DnsAnswer) -> None:
    match answer:
        case _ if gateway.literal is not None:
            found.addresses = [gateway.host]
        case Records(values):
            found.addresses = list(values)
        case Absent() | DnsFailure():
            pass  # the connection says so too, in the same words


async def _look_inside(found: Found, outbound: Outbound, gateway: Url, access: Access, now: datetime) -> None:
    """Checks TLS first, and HTTP only if the certificate proves the name."""
    if gateway.scheme == "https":
        greeting = await outbound.greet(gateway, deadline_seconds=PROBE_SECONDS, tls=access.tls)
        _note_greeting(found, greeting, gateway.host, now)
        if greeting.fault:
            return
    else:
        found.warnings.append("it is spoken to without TLS, as the configuration allows")
    async with outbound.stream(
        f"{gateway}/health",
        HEADERS,
        deadline_seconds=PROBE_SECONDS,
        answer_bytes_max=PROBE_BYTES_MAX,
        tls=access.tls,
        plain=access.plain,
    ) as answer:
        found.http_status = answer.status
        if answer.status >= 500:
            found.faults.append(
                f"{gateway}/health answered {answer.status}: the gateway is down or in trouble"
            )


def _note_greeting(found: Found, greeting: Greeting, host: str, now: datetime) -> None:
    found.tls_version = greeting.version
    if greeting.fault:
        found.faults.append(f"{host}: {greeting.fault}")
    if greeting.certificate is None:
        return
    try:
        certificate = x509.load_der_x509_certificate(greeting.certificate)
        found.subject, found.issuer = (
            each.rfc4514_string() for each in (certificate.subject, certificate.issuer)
        )
        found.names = _names(certificate)
    except ValueError:
        found.faults.append(f"{host}: its certificate can't be read")
        return
    end = certificate.not_valid_after_utc
    found.expires_at = f"{end:%Y-%m-%d %H:%M} UTC"
    if now < end < now + timedelta(days=RENEWAL_DAYS):
        found.warnings.append(f"its certificate ends in {(end - now).days} days")


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names]


def _tell(found: Found) -> None:
    rows: list[tuple[str, Any]] = [
        ("records", found.records),
        ("gateway", found.gateway),
        ("largest message", f"{found.max_size} bytes" if found.max_size else None),
        ("features", found.features),
        ("authentication", found.auth),
        ("kept for", f"{found.kept_seconds} s" if found.kept_seconds is not None else None),
        ("addresses", found.addresses),
        ("TLS", found.tls_version),
        ("certificate", found.subject),
        ("valid for", found.names),
        ("issued by", found.issuer),
        ("ends", found.expires_at),
        ("HTTP", f"{found.http_status} at /health" if found.http_status else None),
        ("note", found.warnings),
        ("wrong", found.faults),
    ]
    typer.echo(found.domain)
    for title, value in rows:
        for line in value if isinstance(value, list) else [value]:
            if line:
                typer.echo(f"  {title:<16} {plain(line)}")
    if not found.faults:
        typer.echo("  Nothing is wrong.")
