"""Crowds that come again and again: nothing of theirs is left with the gateway, and nobody waits for them."""

from pathlib import Path

from tests.stories.crowd import town
from tests.stories.test_crowd import beside_crowds


async def test_crowds_that_come_again_and_again_leave_nothing_behind(tmp_path: Path, dsn: str) -> None:
    async with town(tmp_path, dsn) as built:
        await beside_crowds(built, filled_seconds=3.0, rounds=10)
