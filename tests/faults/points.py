"""Where a gateway can be told to die, and what else its environment tells it."""

from enum import StrEnum

KILL = "AMTP_TEST_KILL"
HASTY = "AMTP_TEST_HASTY"
TRUSTING = "AMTP_TEST_TRUSTING"
CLOCK = "AMTP_TEST_CLOCK"


class Point(StrEnum):
    IN_BATCH = "in-batch"  # a transaction is open and empty, or its statement is sent and not answered
    BEFORE_COMMIT = "before-commit"  # everything is written
    AFTER_COMMIT = "after-commit"  # and nobody has been answered
    BEFORE_SETTLE = "before-settle"  # delivered, and not yet recorded
    AFTER_SETTLE = "after-settle"
