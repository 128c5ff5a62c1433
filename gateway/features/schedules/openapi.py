"""The OpenAPI operations and shapes of schedules."""

from gateway.http.operation import Operation, Words, ok
from gateway.http.parameters import ID_CURSOR, LIMIT
from gateway.http.shapes import (
    ANY_OBJECT,
    COUNT,
    CURSOR,
    MOMENT,
    PAGE,
    TEXT,
    Shape,
    listed,
    nullable,
    ref,
    shape,
)
from gateway.receive.openapi_operations import SENDER

SCHEDULES = "schedules"

FIND = Operation(
    SCHEDULES,
    "List your schedules, oldest first; for operators, all.",
    ok("ScheduleList"),
    refusals=(403,),
    parameters=(LIMIT, ID_CURSOR, SENDER),
)
CANCEL = Operation(SCHEDULES, "Cancel a schedule.", ok("Schedule"), refusals=(403,))

SCHEDULE_SHAPES: dict[str, Shape] = {
    "ScheduleList": shape({"schedules": listed(ref("Schedule")), **PAGE, "cursor": CURSOR}),
    "Schedule": shape(
        {
            "id": TEXT,
            "repeat": TEXT,
            "next_at": nullable(MOMENT),
            "ends_at": nullable(MOMENT),
            "message_id": TEXT,
            "sender": TEXT,
            "created_at": MOMENT,
            "last_at": nullable(MOMENT),
            "ticks": COUNT,
            "message": {**ANY_OBJECT, "description": "Its recipients, subject, schema and headers."},
        },
        {"ended_at": MOMENT, "end_reason": TEXT},
    ),
}

WORDS = Words(SCHEDULE_SHAPES)
