"""The ticker: sends the messages of schedules, by the rules that any message of its agent would pass."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack
from functools import partial

from gateway.admit.caller import AGENT, Caller
from gateway.features.schedules.schedules import FIRED_AT_ONCE, Schedule, Schedules, Tick
from gateway.flow.accept import Accept, Entrance, NobodyAccepted
from gateway.protocol.cron import Plan, tick_body
from gateway.protocol.errors import AMTPError
from gateway.protocol.message import Message, parse_message
from gateway.protocol.status import RecipientState, Status
from gateway.report.failures import FAILURE, FailureFacts
from gateway.report.postmaster import Postmaster
from gateway.route.placing import Places
from gateway.store.admitted import Admitted
from gateway.store.runtime import Runtime
from gateway.store.wakeups.topics import topics_of

TEMPORARY = 500  # from this status on a refusal may pass

Enter = Callable[[Message, Caller], Awaitable[Entrance]]


class Ticker:
    def __init__(
        self,
        *,
        runtime: Runtime,
        schedules: Schedules,
        accept: Accept,
        postmaster: Postmaster,
    ) -> None:
        self._runtime = runtime
        self._schedules = schedules
        self._accept = accept
        self._postmaster = postmaster

    async def fire(self) -> None:
        """Sends every due tick."""
        while len(await self._some()) == FIRED_AT_ONCE:
            pass

    async def _some(self) -> list[Tick]:
        async with AsyncExitStack() as entering:
            entrances: list[Entrance] = []

            async def enter(message: Message, caller: Caller) -> Entrance:
                entrances.append(await entering.enter_async_context(self._accept.entering(message, caller)))
                return entrances[-1]

            ticks = await self._schedules.fire(partial(self._tick, enter))
            sent = {tick.message.message.row for tick in ticks if tick.message is not None}
            for entrance in entrances:
                if entrance.message.row in sent:
                    entrance.committed()
        written = [each for tick in ticks for each in (tick.message, tick.report) if each is not None]
        self._runtime.ring(topics_of(written))
        return ticks

    async def _tick(self, enter: Enter, schedule: Schedule) -> Tick | None:
        """Returns what a schedule sends at its tick; None where that can't be decided at the moment."""
        now, at = self._runtime.clock.now(), schedule.next_at
        assert at is not None, "what ended is never due"
        following = Plan(schedule.repeat, at, schedule.ends_at).next_after(now)
        body = tick_body(schedule.body, schedule=schedule.id, tick=at)
        message = parse_message(body, row=self._runtime.row_ids(), now=now, local=True)
        caller = Caller("", agent=schedule.agent, scopes=frozenset({AGENT}), name=schedule.agent)
        try:
            entrance = await enter(message, caller)
        except AMTPError as refusal:
            if refusal.status >= TEMPORARY:
                return None
            return Tick(schedule.id, None, await self._report(message, refusal), following)
        places = entrance.places
        report = await self._report(message, places.refusals[0], places) if places.refusals else None
        return Tick(schedule.id, entrance.admitted, report, following)

    async def _report(
        self, message: Message, refusal: AMTPError, places: Places | None = None
    ) -> Admitted | None:
        """Returns a failure report with what the answer would have said if the agent had sent the message itself."""
        self._runtime.journal.noted(
            "warning", f"A tick of {message.sender.name} was refused: {refusal.message}"
        )
        states: Sequence[RecipientState] = places.states if places is not None else ()
        if isinstance(refusal, NobodyAccepted):
            states = refusal.recipients
        trouble = FailureFacts(
            FAILURE,
            message.message_id,
            message.sender.name,
            _refused(message, states),
            refusal.code,
            refusal.message,
            0,
            self._runtime.clock.now(),
        )
        return await self._postmaster.report(
            trouble, proven=True, automatic=message.headers.auto_submitted != "no"
        )


def _refused(message: Message, states: Collection[RecipientState]) -> list[str]:
    failed = [state.address for state in states if state.status is Status.FAILED]
    return failed or [recipient.written for recipient in message.recipients]
