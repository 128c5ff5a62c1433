"""JSON calls to a gateway, and how commands report their outcome: exit 0 ok, 1 refused, 2 usage, 3 unreachable."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.cli.printable import plain, plain_json
from gateway.protocol.url import BadUrl, parse_url

REFUSED, USAGE, UNREACHABLE = 1, 2, 3
SECONDS_MAX = 90  # a request may wait a minute for mail
ANSWER_BYTES_MAX = 64 * 1024 * 1024


class CallRefused(Exception):
    """A refusal by the gateway; its error envelope gives the reason."""

    def __init__(self, envelope: Mapping[str, Any]) -> None:
        self.envelope = envelope
        error = envelope["error"]
        super().__init__(f"{error['message']} ({error['code']})")


class Unreachable(Exception):
    """A call that no gateway answered."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A gateway's URL, the key for it, and whether its answers are shown as JSON."""

    gateway: str
    key: str | None
    as_json: bool = False

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Returns the answer's JSON; raises Refused or Unreachable. A body in bytes is JSON already."""
        url = parse_url(self.gateway, plain=True)
        if isinstance(url, BadUrl):
            raise typer.BadParameter(f"--gateway {url.reason}")
        headers = {"Accept": "application/json", "User-Agent": "AMTP/1.0 (amtp-gateway cli)"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        if data is not None:
            headers["Content-Type"] = "application/json"
        kind = HTTPSConnection if url.scheme == "https" else HTTPConnection
        connection = kind(url.host, url.port, timeout=SECONDS_MAX)
        try:
            connection.request(method, url.path.rstrip("/") + path, data, headers)
            response = connection.getresponse()
            raw = response.read(ANSWER_BYTES_MAX)
        except (OSError, HTTPException) as failure:
            raise Unreachable(f"No gateway answers at {self.gateway}: {_reason(failure)}.") from None
        finally:
            connection.close()
        return _judged(response.status, raw, self.gateway)


def _judged(status: int, raw: bytes, gateway: str) -> Any:
    try:
        answer = json.loads(raw) if raw else None
    except ValueError:
        answer = None
    if 200 <= status < 300:
        return answer
    if isinstance(answer, dict) and {"code", "message"} <= set(answer.get("error") or ()):
        raise CallRefused(answer)
    raise Unreachable(f"What answers at {gateway} is no AMTP gateway: it said {status}. Check the address.")


def _reason(failure: Exception) -> str:
    return getattr(failure, "strerror", None) or str(failure) or type(failure).__name__


@contextmanager
def outcome(as_json: bool) -> Iterator[None]:
    """Reports Refused and Unreachable without a traceback, and exits with the code for them."""
    try:
        yield
    except CallRefused as refusal:
        if as_json:
            print_json(refusal.envelope)
        typer.echo(f"amtp: {plain(str(refusal))}", err=True)
        raise typer.Exit(REFUSED) from None
    except Unreachable as silence:
        typer.echo(f"amtp: {plain(str(silence))}", err=True)
        raise typer.Exit(UNREACHABLE) from None


def print_json(answer: object) -> None:
    typer.echo(plain_json(answer))


def print_table(columns: Mapping[str, str], rows: list[dict[str, Any]]) -> None:
    """Prints rows as a table; `columns` maps their keys to titles."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in columns.values():
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(escape(_shown(row.get(key))) for key in columns))
    Console().print(table)


def print_fields(titles: Mapping[str, str], row: Mapping[str, Any]) -> None:
    """Prints the fields of one thing that have a value, a line each."""
    width = max(map(len, titles.values()))
    for key, title in titles.items():
        if row.get(key) not in (None, "", []):
            typer.echo(f"{title:<{width}}  {_shown(row[key])}")


def _shown(value: object) -> str:
    """Returns a value as printable text; strangers may have written it."""
    if isinstance(value, list | tuple):
        return plain(", ".join(map(str, value)))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else plain(str(value))
