"""A few words with a served gateway, over the standard library, and patience."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from tests.served import Served

SECONDS_MAX = 60.0
LOOK_SECONDS = 0.1

Found = TypeVar("Found")


@dataclass(frozen=True)
class Told:
    """An answer; status 0 where none came."""

    status: int
    json: Any


def call(url: str, method: str, path: str, key: str | None = None, body: Any = None) -> Told:
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS_MAX) as answer:
            return Told(answer.status, json.load(answer))
    except urllib.error.HTTPError as refusal:
        return Told(refusal.code, json.load(refusal))
    except OSError:
        return Told(0, None)


def until(look: Callable[[], Found | None], what: str) -> Found:
    """What `look` finds, once it finds something."""
    deadline = time.monotonic() + SECONDS_MAX
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {SECONDS_MAX} s for {what}"
        time.sleep(LOOK_SECONDS)
    return found


@dataclass(frozen=True)
class Writer:
    """An agent of the served gateway that writes to itself."""

    url: str
    address: str
    key: str

    def send(self, number: int) -> Told:
        body = {"sender": self.address, "recipients": [self.address], "payload": number}
        return call(self.url, "POST", "/v1/messages", self.key, body)

    def inbox(self) -> list[int]:
        """The numbers that lie in the inbox, in its order."""
        page = call(self.url, "GET", f"/v1/inbox/{self.address}?limit=1000", self.key)
        assert page.status == 200, page
        return [message["payload"] for message in page.json["messages"]]


def writer(gateway: Served) -> Writer:
    told = call(gateway.url, "POST", "/v1/admin/agents", gateway.admin_key, {"address": "writer@localhost"})
    assert told.status == 201, told
    return Writer(gateway.url, told.json["agent"]["address"], told.json["agent"]["api_key"])
