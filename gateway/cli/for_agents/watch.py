"""`amtp inbox ADDRESS watch`: prints messages as they come."""

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import typer

from gateway.cli.call import Remote, Unreachable
from gateway.cli.printable import plain, plain_json

WAIT_SECONDS = 50  # of one request; gateways wait a minute at most
AGAIN_SECONDS = 2.0  # between retries while the gateway is down


def watch(there: Remote, path: str, *, as_json: bool) -> None:
    """Prints the messages in the inbox, and then new ones, until Ctrl-C."""
    try:
        for message in _messages(there, path):
            typer.echo(_on_one_line(message) if as_json else line_of(message))
    except KeyboardInterrupt:
        return


def line_of(message: dict[str, Any]) -> str:
    """Returns a message's time, sender, subject and payload on one line."""
    about = message["gateway"]
    words = [about["accepted_at"], message["sender"] + (" (unproven)" if about.get("untrusted") else "")]
    if message.get("subject"):
        words.append(f"{message['subject']}:")
    return plain("  ".join([*words, _on_one_line(message.get("payload"))]))


def _on_one_line(value: object) -> str:
    return " ".join(line.strip() for line in plain_json(value).split("\n"))


def _messages(there: Remote, path: str) -> Iterator[dict[str, Any]]:
    page: dict[str, Any] = {"has_more": True, "cursor": None}
    while page["has_more"]:
        page = there.call("GET", f"{path}{_query(cursor=page['cursor'])}")
        yield from page["messages"]
    away = False
    while True:
        try:
            page = there.call("GET", f"{path}{_query(status='unread', wait=WAIT_SECONDS)}")
        except Unreachable as silence:
            if not away:
                typer.echo(f"amtp: {plain(str(silence))} Trying again.", err=True)
            away = True
            time.sleep(AGAIN_SECONDS)
            continue
        away = False
        yield from page["messages"]


def _query(**asked: Any) -> str:
    known = {name: value for name, value in asked.items() if value is not None}
    return f"?{urlencode(known)}" if known else ""
