"""The core alone accepts, delivers, retries and reports: its stories pass with an empty list of features."""

from collections.abc import Sequence

import pytest

from gateway.features.feature import Plug
from tests.stories.test_federation import *  # noqa: F403 - the stories themselves
from tests.stories.test_first_message import *  # noqa: F403
from tests.stories.test_inbox import *  # noqa: F403
from tests.world import World


@pytest.fixture
def features() -> Sequence[Plug]:
    return ()


async def test_a_gateway_without_features_offers_nothing_of_theirs(world: World) -> None:
    async with world.gateway() as gateway:
        paths = (await gateway.call("GET", "/openapi.json")).json["paths"]
        assert "/v1/messages" in paths
        families = (
            "/v1/webhooks",
            "/v1/attachments",
            "/v1/schedules",
            "/v1/admin/queue",
            "/v1/admin/dead-letters",
        )
        assert not [path for path in paths if path.startswith(families)]
