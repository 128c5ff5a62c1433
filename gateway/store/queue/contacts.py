"""The last contacts with other domains' gateways: noted in memory and written periodically, so that no mail waits for it."""

from datetime import datetime

from gateway.store.clock import Clock
from gateway.store.database import Database

QUIET_DAYS_MAX = 400  # after so long without a contact a domain is forgotten


class Contacts:
    """The contacts this process noticed since its last write."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._answered: dict[str, datetime] = {}
        self._heard: dict[str, datetime] = {}

    def answered(self, destination: str) -> None:
        """Notes that the gateway there answered; ignores destinations with an @, which are agents here."""
        if "@" not in destination:
            self._answered[destination] = self._clock.now()

    def heard(self, domain: str) -> None:
        """Notes that the domain's gateway handed in a message and proved its domain."""
        self._heard[domain] = self._clock.now()

    async def write(self, database: Database) -> None:
        answered, self._answered = self._answered, {}
        heard, self._heard = self._heard, {}
        domains = sorted(answered.keys() | heard.keys())
        if domains:
            times = ([found.get(domain) for domain in domains] for found in (answered, heard))
            await database.execute(_WRITE, domains, *times)


async def forget_strangers(database: Database) -> None:
    await database.execute(
        "delete from contacts where greatest(answered_at, heard_at) < amtp_now() - make_interval(days => $1)",
        QUIET_DAYS_MAX,
    )


_WRITE = """
insert into contacts as c (domain, answered_at, heard_at)
select * from unnest($1::text[], $2::timestamptz[], $3::timestamptz[])
on conflict (domain) do update set answered_at = greatest(c.answered_at, excluded.answered_at),
    heard_at = greatest(c.heard_at, excluded.heard_at)
"""
