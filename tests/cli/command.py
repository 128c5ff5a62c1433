"""The command `amtp`, run in this process beside a gateway of its loop."""

import asyncio

from typer.testing import CliRunner, Result

from gateway.cli.main import app
from tests.world import Agent, Gateway


async def amtp(variables: dict[str, str], *words: str, feed: str | None = None) -> Result:
    """The command in a thread: the gateway answers on this loop."""
    environment = {"COLUMNS": "200", **variables}
    return await asyncio.to_thread(CliRunner().invoke, app, list(words), env=environment, input=feed)


def by_key(agent: Agent) -> dict[str, str]:
    return {"AMTP_GATEWAY": agent.gateway.url, "AMTP_KEY": agent.key}


def by_admin_key(gateway: Gateway) -> dict[str, str]:
    return {"AMTP_GATEWAY": gateway.url, "AMTP_ADMIN_KEY": gateway.admin_key}
