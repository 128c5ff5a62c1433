"""The long form of what must not hold the event loop, and bodies that nobody thought of."""

import pytest

from tests.attacks.test_loop import check
from tests.attacks.worst import ATTACKS
from tests.world import World


@pytest.mark.parametrize("name", ATTACKS)
async def test_the_loop_is_held_by_nothing_however_much_is_sent(
    name: str, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    await check(name, world, capsys, parts=100)
