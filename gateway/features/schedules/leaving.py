"""The fate of an agent's schedules when its key or the agent itself goes."""

from collections.abc import Collection
from typing import Any
from uuid import UUID

from gateway.protocol.timestamp import render_timestamp
from gateway.store.agents.leaving import LISTED_MAX, RETIRED, Left


class ScheduleLeaving:
    name = "schedules"

    async def made(self, connection: Any, whose: str, value: object, /) -> list[Left]:
        rows = await connection.fetch(
            "select id, repeat, key, created_at from schedules t"
            f" where next_at is not null and {whose} order by id limit $2",
            value,
            LISTED_MAX,
        )
        return [
            Left(
                number, {"id": str(number), "repeat": repeat, "key": key, "created_at": render_timestamp(at)}
            )
            for number, repeat, key, at in rows
        ]

    async def end(self, connection: Any, ids: Collection[UUID], reason: str, /) -> None:
        await connection.execute(
            "update schedules set next_at = null, ended_at = amtp_now(), end_reason = $2"
            " where id = any ($1::uuid[]) and next_at is not null",
            ids,
            reason,
        )

    async def retire(self, connection: Any, agent: int, /) -> None:
        await connection.execute(
            "update schedules set next_at = null, ended_at = amtp_now(), end_reason = $2"
            " where agent = $1 and next_at is not null",
            agent,
            RETIRED,
        )

    async def remove(self, connection: Any, agent: int, /) -> None:
        await self.retire(connection, agent)

    async def bring_back(self, connection: Any, agent: int, /) -> list[UUID]:
        return []  # they ended when the agent was retired
