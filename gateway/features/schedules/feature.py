"""The feature of schedules: the check that stores them, the ticker, and the endpoints to list and end them."""

from gateway.features.feature import Base, Core, Faces, Feature
from gateway.features.schedules.check import ScheduleCheck
from gateway.features.schedules.door import ScheduleDoor
from gateway.features.schedules.leaving import ScheduleLeaving
from gateway.features.schedules.openapi import WORDS
from gateway.features.schedules.schedules import Schedules
from gateway.features.schedules.ticker import Ticker
from gateway.flow.housekeeping import Chore


def feature(base: Base) -> Feature:
    runtime, config = base.runtime, base.config
    schedules = Schedules(
        runtime.database,
        runtime.row_ids,
        base.audit,
        per_agent_max=lambda: base.config.limits.schedules_per_agent,
    )

    def faces(core: Core) -> Faces:
        ticker = Ticker(runtime=runtime, schedules=schedules, accept=core.accept, postmaster=core.postmaster)
        return Faces(
            doors=(ScheduleDoor(schedules=schedules, authenticator=core.authenticator),),
            words=WORDS,
            chores=(
                Chore("schedules", 1, ticker.fire),
                Chore("old schedules", 600, lambda: schedules.forget(base.config.retention.keys_days)),
            ),
        )

    check = ScheduleCheck(schedules, config.domains, runtime.clock)
    return Feature(faces, checks=(check,), leavings=(ScheduleLeaving(),))
