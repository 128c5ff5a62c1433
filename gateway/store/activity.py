"""When agents were last seen: noted in memory, written now and then, so that reading mail writes no row."""

from gateway.store.database import Database


class Activity:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen: set[int] = set()

    def saw(self, agent: int) -> None:
        self._seen.add(agent)

    async def write(self) -> None:
        """Writes down who was seen since the last time; a chore of the house."""
        seen, self._seen = self._seen, set()
        if seen:
            await self._database.execute(_WRITE, list(seen))


# A row that another statement holds is left alone: it waits for nobody, and the agent will be seen again.
_WRITE = """
update agents set last_active_at = amtp_now()
where id = any (array(select id from agents where id = any ($1::bigint[]) for update skip locked))
"""
