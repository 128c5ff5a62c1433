"""The fate of an agent's webhooks when its key or the agent itself goes."""

from collections.abc import Collection
from typing import Any
from uuid import UUID

from gateway.features.notifications.subscriptions import subscribers_changed
from gateway.protocol.timestamp import render_timestamp
from gateway.store.agents.leaving import LISTED_MAX, Left


class WebhookLeaving:
    name = "webhooks"

    async def made(self, connection: Any, whose: str, value: object, /) -> list[Left]:
        rows = await connection.fetch(
            f"select id, url, key, created_at from subscriptions t where {whose} order by id limit $2",
            value,
            LISTED_MAX,
        )
        return [
            Left(
                number,
                {"webhook_id": str(number), "url": url, "key": key, "created_at": render_timestamp(at)},
            )
            for number, url, key, at in rows
        ]

    async def end(self, connection: Any, ids: Collection[UUID], _reason: str, /) -> None:
        if ids:
            await connection.execute("delete from subscriptions where id = any ($1::uuid[])", ids)
            await subscribers_changed(connection)

    async def retire(self, _connection: Any, _agent: int, /) -> None:
        """Leaves them active: a retired agent still hears what becomes of its messages."""

    async def remove(self, connection: Any, agent: int, /) -> None:
        if await connection.execute("delete from subscriptions where agent = $1", agent) != "DELETE 0":
            await subscribers_changed(connection)

    async def bring_back(self, connection: Any, agent: int, /) -> list[UUID]:
        await connection.execute(
            "delete from subscriptions where agent = $1 and proven_at is null", agent
        )  # whose target never answered
        rows = await connection.fetch(
            "update subscriptions set status = 'disabled', disabled_at = amtp_now()"
            " where agent = $1 and status <> 'disabled' returning id",
            agent,
        )
        await subscribers_changed(connection)
        return [row["id"] for row in rows]
