"""An operation: what a route does, takes and answers, as the interface document says it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

JSON = "application/json"
LINES = "application/x-ndjson"
EVENTS = "text/event-stream"
ANYTHING = "*/*"

NO_KEY: tuple[str, ...] = ()
ANY_KEY = ("bearer", "apiKey")
ADMIN_KEY = ("bearer", "adminKey")
MAYBE_KEY = ("", *ANY_KEY)  # a gateway without a key may relay to agents here


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter. The same name may mean different things at different endpoints."""

    name: str
    schema: Mapping[str, Any]
    description: str


@dataclass(frozen=True, slots=True)
class Operation:
    """The description of an endpoint. `answers` name shapes by status and content type; `refusals` are its own errors."""

    tag: str
    summary: str
    answers: Mapping[int, Mapping[str, str]]
    keys: tuple[str, ...] = ANY_KEY
    refusals: tuple[int, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    body: Mapping[str, str] | None = None
    body_required: bool = True


def ok(shape: str, status: int = 200) -> Mapping[int, Mapping[str, str]]:
    return {status: {JSON: shape}}


def json_body(shape: str) -> Mapping[str, str]:
    return {JSON: shape}


@dataclass(frozen=True, slots=True)
class Words:
    """The shapes and path parts that the operations of a family of endpoints refer to, by name."""

    shapes: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, Any] = field(default_factory=dict)

    def __or__(self, other: "Words") -> "Words":
        return Words({**self.shapes, **other.shapes}, {**self.parts, **other.parts})
