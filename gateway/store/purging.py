"""Emptying an inbox: entries that nobody wants go, piece by piece, and what they were stays in the books as delivered."""

from dataclasses import asdict, dataclass

from gateway.mint import Mint
from gateway.store.audit import Audit
from gateway.store.database import Database
from gateway.store.removal import CLEAR, CLEARED_AT_ONCE

PIECES_MAX = 20  # in one request


@dataclass(frozen=True, slots=True)
class Unwanted:
    """Which open entries of an inbox: all that every given condition holds for."""

    older_seconds: int | None = None
    sender: str | None = None
    unproven: bool = False


# An entry under a running lease is its consumer's.
_MEANT = """
    from entries e left join messages m on m.id = e.message
    where e.agent = {agent} and e.acknowledged_at is null and e.dead_at is null
      and (e.lease_until is null or e.lease_until <= amtp_now())
      and ({age}::int is null or e.message < amtp_first_id(amtp_now() - make_interval(secs => {age}::int)))
      and ({sender}::text is null or m.sender = {sender}) and (not {unproven}::bool or not m.proven)
"""

_OF_INBOX = f"""
    select e.message, e.agent, a.name, coalesce(e.address, a.name) as address, false as returned
    from agents a cross join lateral (
        select e.* {_MEANT.format(agent="a.id", age="$5", sender="$6", unproven="$7")}
        order by e.message limit $1 for update of e skip locked
    ) e
    where a.id = $4
"""

_COUNT = f"select count(*) {_MEANT.format(agent='$1', age='$2', sender='$3', unproven='$4')}"


class Purging:
    def __init__(self, database: Database, mint: Mint, audit: Audit) -> None:
        self._database = database
        self._mint = mint
        self._audit = audit

    async def count(self, agent: int, unwanted: Unwanted) -> int:
        """Returns how many entries are meant."""
        count: int = await self._database.fetchval(
            _COUNT, agent, unwanted.older_seconds, unwanted.sender, unwanted.unproven
        )
        return count

    async def purge(self, agent: int, name: str, unwanted: Unwanted, actor: str) -> tuple[int, bool]:
        """Lets go of the oldest of them; returns how many went, and whether more may be left."""
        said = {key: value for key, value in asdict(unwanted).items() if value}
        purged = 0
        for _ in range(PIECES_MAX):
            async with self._database.transaction() as connection:
                gone: int = await connection.fetchval(
                    CLEAR.format(chosen=_OF_INBOX),
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
                return purged, False
        return purged, True
