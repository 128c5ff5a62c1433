"""Schedules: the times of ticks, and the body sent at a tick. Cron expressions are in UTC.

| header | what it means for a schedule |
|---|---|
| `repeat` | five cron fields; a tick is a minute at most |
| `deliver-after` | no tick before |
| `expires-at` | no tick after: it ends the schedule |
| `ttl` | of each tick's message, from its tick |
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
from cronsim import CronSim, CronSimError

from gateway.protocol.fields import fault
from gateway.protocol.identifiers import tick_id, uuid4_of
from gateway.protocol.members import encode, members_of, render
from gateway.protocol.message import Message
from gateway.protocol.timestamp import parse_timestamp

REMEDY: Final = 'write five cron fields, such as "0 9 * * 1-5"'
SPENT: Final = ("repeat", "deliver-after", "expires-at")  # headers of the schedule, not of what it sends


@dataclass(frozen=True, slots=True)
class Plan:
    """A message to be sent at every tick."""

    repeat: str
    first: datetime
    ends: datetime | None

    def next_after(self, moment: datetime) -> datetime | None:
        """Returns its first tick after the moment; None where there is none."""
        tick = tick_after(self.repeat, moment)
        return None if tick is None or (self.ends is not None and tick > self.ends) else tick


def plan_of(message: Message, now: datetime) -> Plan:
    """Returns the plan of a message; raises where it has no tick, or can't be sent again."""
    if message.signed:
        raise fault("signature", "can't be right for every tick", "leave it out of what repeats")
    repeat = message.headers.repeat
    assert repeat is not None
    try:
        first = tick_after(repeat, _just_before(message.headers.deliver_after, now))
    except CronSimError as error:
        raise fault("headers.repeat", f"is no time: {str(error).lower()}", REMEDY) from None
    ends = _ends(message.body)
    if first is None:
        raise fault("headers.repeat", "never comes", REMEDY)
    if ends is not None and first > ends:
        raise fault("headers.expires-at", "is before the first tick", "let the schedule end later")
    return Plan(repeat, first, ends)


def tick_after(repeat: str, moment: datetime) -> datetime | None:
    """Returns the first tick after the moment; None where none comes in fifty years. Raises CronSimError."""
    return next(CronSim(repeat, moment), None)


def tick_body(body: bytes, *, schedule: UUID, tick: datetime) -> bytes:
    """Returns the body sent at a tick; its ids are derived, so computing it again gives the same ones."""
    identity = tick_id(schedule, tick)
    members: dict[str, bytes | msgspec.Raw] = {**members_of(body)}
    headers = {name: raw for name, raw in _headers(body).items() if name not in SPENT}
    members.pop("timestamp", None)  # each tick has its own
    changed = {"message_id": identity, "idempotency_key": uuid4_of(str(schedule), identity)}
    return render(members | encode(changed) | {"headers": render(headers)})


def _just_before(not_before: datetime | None, now: datetime) -> datetime:
    """Returns a moment before `deliver-after`, so that a tick exactly then counts."""
    return now if not_before is None else max(now, not_before - timedelta(microseconds=1))


def _ends(body: bytes) -> datetime | None:
    """Returns `expires-at` as written: the parsed expiry of a message counts `ttl`, too."""
    raw: Any = _headers(body).get("expires-at")
    written = None if raw is None else msgspec.json.decode(raw)
    return parse_timestamp(written, "headers.expires-at") if written else None


def _headers(body: bytes) -> dict[str, msgspec.Raw]:
    return msgspec.json.decode(members_of(body)["headers"], type=dict[str, msgspec.Raw])
