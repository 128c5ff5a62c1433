"""The access to Postgres: a pool, dedicated connections for the writers, and its failures as our errors.

Whatever goes wrong between us and the database is temporary: it becomes a TEMPORARY_FAILURE, never a 2xx.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from weakref import WeakSet

import asyncpg

from gateway.protocol.errors import AMTPError, Code
from gateway.store.clock import Clock

CONNECT_SECONDS_MAX = 5.0
ACQUIRE_SECONDS_MAX = 5.0
RETRY_AFTER_SECONDS = 2

# Errors of Postgres that a retry may cure.
WEATHER = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection that the server closed while it lay in the pool
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.PostgresIOError,
    asyncpg.InternalServerError,
    asyncpg.InvalidPasswordError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)


def told(failure: BaseException) -> AMTPError:
    """Returns the failure as a caller may see it; the details from Postgres go to the log with the cause."""
    reason = "full" if isinstance(failure, asyncpg.DiskFullError) else "not available"
    return AMTPError(
        Code.TEMPORARY_FAILURE,
        f"The message store is {reason} at the moment. Nothing was accepted; try again.",
        retry_after=RETRY_AFTER_SECONDS,
    )


@contextmanager
def weather() -> Iterator[None]:
    """Turns database failures that a retry may cure into TEMPORARY_FAILURE."""
    try:
        yield
    except WEATHER as failure:
        raise told(failure) from failure


class Database:
    """A pool of connections and the means to open lines of one's own."""

    def __init__(
        self,
        dsn: str,
        *,
        clock: Clock,
        pool_size: int = 8,
        statement_timeout_seconds: float = 10,
        pooled: bool | None = False,
    ) -> None:
        self._dsn = dsn
        self._clock = clock
        self._pool_size = pool_size
        self._timeout_seconds = statement_timeout_seconds
        self._pooled = pooled  # behind PgBouncer: no prepared statements, no LISTEN; None: to be found out
        self._pool: asyncpg.Pool | None = None
        self._turned: dict[int, float] = {}
        self._ringing = WeakSet[Any]()

    @property
    def listens(self) -> bool:
        """Returns whether LISTEN reaches the server, which a transaction pooler prevents."""
        return not self._pooled

    async def open(self) -> None:
        with weather():
            if self._pooled is None:
                self._pooled = await self._is_pooled()
            self._pool = await asyncpg.create_pool(
                self._dsn,
                min_size=1,
                max_size=self._pool_size,
                setup=self.turn,
                reset=self._leave,
                **self._arguments(),
            )

    async def _is_pooled(self) -> bool:
        """Returns whether a pooler answers: unlike Postgres, it refuses settings at connection start."""
        try:
            connection = await self.line()
        except asyncpg.ProtocolViolationError:
            return True
        await connection.close()
        return False

    async def close(self) -> None:
        if self._pool is None:
            return
        pool, self._pool = self._pool, None
        try:
            await asyncio.wait_for(pool.close(), CONNECT_SECONDS_MAX)
        except (TimeoutError, *WEATHER):
            pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """Yields a connection of the pool; the caller opens transactions itself."""
        assert self._pool is not None, "the database is opened first"
        with weather():
            async with self._pool.acquire(timeout=ACQUIRE_SECONDS_MAX) as connection:
                yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        async with self.connection() as connection, connection.transaction():
            yield connection

    async def fetch(self, statement: str, *arguments: object) -> list[Any]:
        async with self.connection() as connection:
            rows: list[Any] = await connection.fetch(statement, *arguments)
            return rows

    async def fetchrow(self, statement: str, *arguments: object) -> Any:
        async with self.connection() as connection:
            return await connection.fetchrow(statement, *arguments)

    async def fetchval(self, statement: str, *arguments: object) -> Any:
        async with self.connection() as connection:
            return await connection.fetchval(statement, *arguments)

    async def execute(self, statement: str, *arguments: object) -> str:
        async with self.connection() as connection:
            done: str = await connection.execute(statement, *arguments)
            return done

    def _arguments(self, **settings: str) -> dict[str, Any]:
        return {
            "timeout": CONNECT_SECONDS_MAX,
            "command_timeout": self._timeout_seconds + 5,
            "statement_cache_size": 0 if self._pooled else 256,
            "server_settings": {}
            if self._pooled
            else {
                "application_name": "amtp",
                "statement_timeout": str(int(self._timeout_seconds * 1000)),
                "idle_in_transaction_session_timeout": "60000",
                "synchronous_commit": "on",
                "jit": "off",
                # A plan made while a table was empty would read all of it ever after, however large it grows.
                "enable_seqscan": "off",
                **settings,
            },
        }

    async def line(self, *, rings: bool = False) -> Any:
        """Opens a dedicated connection, for a writer or a listener; its owner closes it.

        One that `rings` belongs to a writer that wakes this process itself after each commit. It runs few statements
        that have one plan each, and a small batch is written sooner than it is planned anew.
        """
        if not rings:
            return await asyncpg.connect(self._dsn, **self._arguments())
        line = await asyncpg.connect(self._dsn, **self._arguments(plan_cache_mode="force_generic_plan"))
        self._ringing.add(line)
        return line

    def rings(self, backend: int) -> bool:
        """Returns whether that backend serves a connection opened with `rings`."""
        return any(not line.is_closed() and line.get_server_pid() == backend for line in self._ringing)

    async def turn(self, connection: Any) -> None:
        """Sets the connection's clock to ours; free in production, where no clock is turned."""
        offset = self._clock.offset.total_seconds()
        backend = connection.get_server_pid()
        if self._turned.get(backend, 0.0) != offset:
            await connection.execute("select set_config('amtp.clock_offset', $1, false)", str(offset))
            self._turned[backend] = offset

    async def _leave(self, connection: Any) -> None:
        """Skips the pool's reset of a connection: we leave no state on one."""
