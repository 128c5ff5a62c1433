"""The check that stores a message with `headers.repeat` as a schedule, instead of sending it now."""

from collections.abc import Awaitable, Collection, Sequence
from dataclasses import dataclass

from gateway.admit.caller import Caller
from gateway.admit.checks import Judgement, Keep, Stage
from gateway.features.schedules.schedules import Schedules
from gateway.protocol.cron import plan_of
from gateway.protocol.message import Message
from gateway.protocol.status import Acceptance, RecipientState, Status
from gateway.store.admitted import Admitted
from gateway.store.clock import Clock


class ScheduleCheck:
    """The check for messages of local agents that carry `headers.repeat`; from peers the header is carried as data."""

    stage = Stage.TIME

    def __init__(self, schedules: Schedules, domains: Collection[str], clock: Clock) -> None:
        self._schedules = schedules
        self._domains = frozenset(domains)
        self._clock = clock

    def judge(self, message: Message, caller: Caller, /) -> Awaitable[Judgement] | None:
        if message.headers.repeat is None or message.sender.domain not in self._domains:
            return None
        return self._kept(caller.key)

    async def _kept(self, key: str | None) -> Judgement:
        return Keep(_Keeping(self._schedules, self._clock, key))


@dataclass(frozen=True, slots=True)
class _Keeping:
    """The keeper of one message, handed in with a key or without."""

    schedules: Schedules
    clock: Clock
    key: str | None

    async def keep(self, admitted: Admitted, states: Sequence[RecipientState], /) -> Acceptance:
        """Adds the schedule; its recipients wait for the next tick."""
        plan = plan_of(admitted.message, self.clock.now())
        schedule = await self.schedules.add(admitted, plan, self.key)
        status = Status.QUEUED if schedule.next_at else Status.CANCELLED
        waiting = [
            state
            if state.status is Status.FAILED
            else RecipientState(state.address, status, timestamp=state.timestamp)
            for state in states
        ]
        return Acceptance(schedule.message_id, tuple(waiting), schedule.id, schedule.state)
