"""Development mode on a machine that others use too: their programs and forwarders are not ours."""

import asyncio

import pytest

from tests.world import World

NOBODY = 65534
ASK = """
exec 3<>/dev/tcp/127.0.0.1/$0
printf 'GET /v1/discovery/agents HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3
head -n 1 <&3
"""


@pytest.mark.parametrize(("user", "status"), [(NOBODY, "401"), (0, "200")])
async def test_only_programs_of_its_own_user_or_of_root_need_no_key(
    world: World, user: int, status: str
) -> None:
    async with world.gateway(development=True) as gateway:
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", ASK, str(gateway.app.ports[0])),
            stdout=asyncio.subprocess.PIPE,
            user=user,
        )
        answered, _ = await process.communicate()
        assert answered.decode().split()[1] == status
