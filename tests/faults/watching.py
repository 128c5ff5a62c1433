"""Waiting for what happens in a database."""

import asyncio

import asyncpg

PATIENCE_SECONDS = 15.0
LOOK_SECONDS = 0.01

SOMEBODY_WAITS = (
    "select exists (select from pg_stat_activity"
    " where datname = current_database() and wait_event_type = 'Lock')"
)


async def until(dsn: str, question: str, patience_seconds: float = PATIENCE_SECONDS) -> None:
    """Until the database answers the question with yes."""
    connection = await asyncpg.connect(dsn)
    try:
        async with asyncio.timeout(patience_seconds):
            while not await connection.fetchval(question):
                await asyncio.sleep(LOOK_SECONDS)
    finally:
        await connection.close()
