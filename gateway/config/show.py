"""Texts for operators: the effective configuration with masked secrets, and an example file."""

import dataclasses
import typing
from collections.abc import Iterator
from dataclasses import MISSING, Field
from typing import Any, Literal
from urllib.parse import urlsplit

import yaml

from gateway.config.fields import hints_of, is_composite, is_section
from gateway.config.settings import Config
from gateway.config.values import Secret

_HEAD = """\
# The configuration of an AMTP gateway: every setting, with its default.
#
# `amtp check-config FILE` shows all faults of a file, with `--show` also the effective values.
# A setting can come from the environment instead: AMTP_<SECTION>_<KEY>, such as AMTP_DATABASE_URL;
# AMTP_DOMAINS takes a list with commas, AMTP_LISTEN and AMTP_PEERS take YAML.
# "${NAME}" in quotes stands for a variable's value. A secret can be read from a file: `url_file` for `url`.
"""

# Examples for settings whose default says too little.
_EXAMPLES = {
    "domains": ["domains: [example.com]"],
    "database.url": ['url: "postgresql://amtp:${PGPASSWORD}@db.internal/amtp"'],
    "tls.certificate_file": ["certificate_file: /etc/amtp/tls.crt"],
    "tls.key_file": ["key_file: /etc/amtp/tls.key"],
    "tls.client_ca_file": ["client_ca_file: /etc/amtp/clients.crt"],
    "proxy.trusted": ["trusted: [10.0.0.0/8]"],
    "dns.nameservers": ['nameservers: [127.0.0.1, "[::1]:5353"]'],
    "outbound.allow_networks": ["allow_networks: [127.0.0.0/8]"],
    "outbound.ca_file": ["ca_file: /etc/amtp/authorities.crt"],
    "hostname": ["hostname: mx1.example.com"],
    "listen": [
        "listen:",
        "  - address: 127.0.0.1:8080",
        "    roles: [public, agents]",
        "  - address: 127.0.0.1:8025",
        "    roles: [admin]",
        "  - address: 0.0.0.0:8443",
        "    tls: true",
    ],
    "peers": ["peers:", "  partner.example:", "    gateway: https://amtp.partner.example"],
}


def effective(config: Any) -> dict[str, Any]:
    """Returns the whole configuration as plain values, with secrets masked."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    match value:
        case Secret():
            return masked(value)
        case bool() | int() | float() | None:
            return value
        case tuple():
            return [_plain(item) for item in value]
        case dict():
            return {name: _plain(item) for name, item in value.items()}
        case _ if is_section(type(value)):
            return effective(value)
        case _:
            return str(value)


def masked(secret: Secret) -> str:
    """Masks a secret; of a URL, scheme, host and path stay."""
    url = urlsplit(secret)
    host = url.netloc.rpartition("@")[2]
    return f"{url.scheme}://…@{host}{url.path}" if url.scheme and host else "…"


def example() -> str:
    """Returns amtp.example.yaml, made from the declarations of the settings."""
    return _HEAD + "".join(f"{line}".rstrip() + "\n" for line in _section(Config, ""))


def _section(kind: Any, prefix: str) -> Iterator[str]:
    hints = hints_of(kind)
    for field in dataclasses.fields(kind):
        path, hint = f"{prefix}{field.name}", hints[field.name]
        if is_section(hint):
            yield from (
                "",
                f"# {field.metadata['doc']}",
                f"{field.name}:",
                *_indented(_section(hint, f"{path}.")),
            )
            continue
        if not prefix:
            yield ""
        yield f"# {field.metadata['doc']}{_range(field, hint)}"
        lines = _EXAMPLES.get(path) or [f"{field.name}: {_default(field)}"]
        yield from lines if path == "domains" else (f"# {line}" for line in lines)
        if is_composite(hint):
            inner = typing.get_args(hint)[1 if typing.get_origin(hint) is dict else 0]
            yield "#   Each has:"
            yield from (f"# {line}" for line in _indented(_explained(inner)))


def _explained(kind: Any) -> Iterator[str]:
    """Yields the keys of a list's or table's items, one line each."""
    hints = hints_of(kind)
    for field in dataclasses.fields(kind):
        yield f"  {field.name}: {field.metadata['doc']}{_range(field, hints[field.name])}"


def _indented(lines: Iterator[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)


def _range(field: Field[Any], hint: Any) -> str:
    low, high = field.metadata.get("low"), field.metadata.get("high")
    choice = typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else hint
    if typing.get_origin(choice) is Literal:
        return f" One of {', '.join(typing.get_args(choice))}."
    return f" {low} to {high}." if low is not None else ""


def _default(field: Field[Any]) -> str:
    if field.default in (None, MISSING, ""):
        return ""
    return yaml.safe_dump(_plain(field.default), default_flow_style=True).removesuffix("...\n").strip()
