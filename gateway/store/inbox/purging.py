"""The purge of an inbox: unwanted entries are deleted in pieces and settled as delivered."""

from dataclasses import asdict, dataclass

from gateway.store.agents.removal import CLEAR, CLEARED_AT_ONCE
from gateway.store.audit import Audit
from gateway.store.database import Database
from gateway.store.inbox.inbox import BY_END, BY_ID, OPEN, STATES
from gateway.store.row_ids import Mint

PIECES_MAX = 20  # in one request


@dataclass(frozen=True, slots=True)
class Unwanted:
    """Conditions on the open entries of an inbox to purge; all that are given must hold."""

    older_seconds: int | None = None
    sender: str | None = None
    unproven: bool = False


# Each state has an index. An entry under a running lease is its consumer's.
_STATES = (
    (f"{STATES['unread']} and {OPEN}", BY_ID),
    (f"{STATES['read']} and {OPEN}", BY_ID),
    (f"e.lease_until <= amtp_now() and {OPEN}", BY_END),
)

_MEANT = """
    from entries e left join messages m on m.id = e.message
    where e.agent = {agent} and {state}
      and ({age}::int is null or e.message < amtp_first_id(amtp_now() - make_interval(secs => {age}::int)))
      and ({sender}::text is null or m.sender = {sender}) and (not {unproven}::bool or not m.proven)
"""

_OF_INBOX = """
    select e.message, e.agent, a.name, coalesce(e.address, a.name) as address, false as returned
    from agents a cross join lateral (
        select e.* {meant} {order} limit $1 for update of e skip locked
    ) e
    where a.id = $4
"""

_COUNTS = [
    f"select count(*) {_MEANT.format(agent='$1', state=state, age='$2', sender='$3', unproven='$4')}"
    for state, _ in _STATES
]
_CLEARS = [
    CLEAR.format(
        chosen=_OF_INBOX.format(
            meant=_MEANT.format(agent="a.id", state=state, age="$5", sender="$6", unproven="$7"), order=order
        )
    )
    for state, order in _STATES
]


class Purging:
    def __init__(self, database: Database, mint: Mint, audit: Audit) -> None:
        self._database = database
        self._mint = mint
        self._audit = audit

    async def count(self, agent: int, unwanted: Unwanted) -> int:
        """Returns how many entries are meant."""
        asked = agent, unwanted.older_seconds, unwanted.sender, unwanted.unproven
        return sum([await self._database.fetchval(count, *asked) for count in _COUNTS])

    async def purge(self, agent: int, name: str, unwanted: Unwanted, actor: str) -> tuple[int, bool]:
        """Deletes the oldest matching entries of each state; returns how many, and whether more may be left."""
        said = {key: value for key, value in asdict(unwanted).items() if value}
        purged, clears = 0, list(_CLEARS)
        for _ in range(PIECES_MAX + len(clears) - 1):
            async with self._database.transaction() as connection:
                gone: int = await connection.fetchval(
                    clears[0],
                    CLEARED_AT_ONCE,
                    self._mint(),
                    "",  # nothing is returned to anybody
                    agent,
                    unwanted.older_seconds,
                    unwanted.sender,
                    unwanted.unproven,
                )
                if gone:
                    await self._audit.write(connection, actor, "inbox.purged", name, {"count": gone, **said})
            purged += gone
            if gone < CLEARED_AT_ONCE:
                del clears[0]
            if not clears:
                return purged, False
        return purged, True
