"""The callbacks of an agent, and the choice of one for a message."""

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gateway.client.message import Message

Callback = Callable[[Message], Any]  # awaited where it is a coroutine function, else called in a thread


@dataclass(frozen=True, slots=True)
class Rule:
    """A callback, and the schema and kind of the messages it takes; None takes any."""

    callback: Callback
    schema: str | None = None
    kind: str | None = None

    def fits(self, message: Message) -> bool:
        return (self.schema is None or self.schema == message.schema) and (
            self.kind is None or self.kind == message.kind
        )

    @property
    def particular(self) -> int:
        """Returns how specific the rule is; more specific rules are tried first."""
        return (self.schema is not None) * 2 + (self.kind is not None)


class Callbacks:
    def __init__(self) -> None:
        self._rules: list[Rule] = []

    def __len__(self) -> int:
        return len(self._rules)

    def add(self, rule: Rule) -> None:
        for other in self._rules:
            if (other.schema, other.kind) == (rule.schema, rule.kind):
                raise ValueError(
                    f"{other.callback.__name__} and {rule.callback.__name__} want the same messages:"
                    " give one of them another schema or kind"
                )
        self._rules.append(rule)
        self._rules.sort(key=lambda rule: -rule.particular)

    def choose(self, message: Message) -> Callback | None:
        """Returns the most specific callback that fits this message; None if none does."""
        return next((rule.callback for rule in self._rules if rule.fits(message)), None)


async def call(callback: Callback, message: Message) -> Any:
    if inspect.iscoroutinefunction(callback):
        return await callback(message)
    return await asyncio.to_thread(callback, message)
