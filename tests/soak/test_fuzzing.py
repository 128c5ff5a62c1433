"""The long form of the requests that are made from the interface document."""

import pytest

from tests.attacks.test_schemathesis import ask_everything
from tests.world import World

EXAMPLES = 200


@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
async def test_whatever_is_asked_at_length_the_answer_is_one_the_document_tells_of(world: World) -> None:
    await ask_everything(world, EXAMPLES)
