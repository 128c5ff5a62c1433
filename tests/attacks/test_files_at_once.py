"""Crowds of slow uploads, downloads and fetches, and agents that upload without end: each holds its share."""

import asyncio

from gateway.config_sections import Attachments
from gateway.store.blocks import BLOCK_BYTES
from tests.attacks.test_attachments import SMALL
from tests.stories.test_attachments import upload
from tests.world import World


async def test_uploads_side_by_side_and_to_oneself_are_counted_like_any_other(world: World) -> None:
    """Three at once where there is room for two; and what was sent still counts in all."""
    size = 2 * BLOCK_BYTES
    rules = Attachments(unsent_bytes=2 * size, agent_bytes=3 * size)
    async with world.gateway(attachments=rules) as gateway:
        mallory, alice = await gateway.register("mallory"), await gateway.register("alice")
        replies = await asyncio.gather(*(upload(mallory, bytes(size)) for _ in range(3)))
        assert sorted(reply.status for reply in replies) == [201, 201, 429]
        for reply in replies:
            if reply.status == 201:
                assert (await mallory.send(mallory.address, attachments=[reply.json])).status == 202
        assert (await upload(mallory, bytes(size))).status == 201
        refused = await upload(mallory, SMALL)
        assert (refused.status, refused.code) == (429, "RATE_LIMIT_EXCEEDED")
        assert refused.json["error"]["details"] == {"limit": 3 * size}
        assert (await upload(alice, bytes(size))).status == 201
