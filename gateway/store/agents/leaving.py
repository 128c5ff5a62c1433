"""The seam for what agents and keys leave behind: things of a feature that were made with a key and go on working.

Each feature that keeps such things has one `Leaving`. All its methods work in the transaction of the act: a key that is
revoked, an agent that is retired, removed or registered again. What operators made for an agent is not the agent's, and
stays.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import UUID

LISTED_MAX: Final = 1000
ENDED: Final = "The key that made it was taken back."
RETIRED: Final = "Its agent was retired."

# Conditions on a table `t` with the columns `agent` and `key`, for one parameter.
OF_AGENT: Final = (
    "t.agent = $1 and not exists (select from keys k where k.id = t.key and k.agent is distinct from t.agent)"
)
OF_KEY: Final = "t.key = $1"


@dataclass(frozen=True, slots=True)
class Left:
    """One thing that is still at work."""

    id: UUID
    shown: Mapping[str, Any]  # as operators see it


class Leaving(Protocol):
    """One feature's handle on what it keeps for agents."""

    @property
    def name(self) -> str:
        """Names the kind of thing in the plural, as lists show it: `schedules`."""

    async def made(self, connection: Any, whose: str, value: object, /) -> list[Left]:
        """Returns what is at work, oldest first; `whose` is OF_AGENT or OF_KEY."""

    async def end(self, connection: Any, ids: Collection[UUID], reason: str, /) -> None:
        """Ends these."""

    async def retire(self, connection: Any, agent: int, /) -> None:
        """Ends what can't go on while the agent is retired."""

    async def remove(self, connection: Any, agent: int, /) -> None:
        """Ends everything of an agent that is gone for good."""

    async def bring_back(self, connection: Any, agent: int, /) -> list[UUID]:
        """Disables what a retired agent had, now that its name is registered again; returns what was disabled."""


Leavings = Sequence[Leaving]
