"""The list of features. Removing a line removes that feature's endpoints, chores and checks, and nothing else."""

from gateway.features.attachments.feature import feature as attachments
from gateway.features.feature import Plug
from gateway.features.notifications.feature import feature as notifications
from gateway.features.notifications.leaving import WebhookLeaving
from gateway.features.operations.feature import feature as operations
from gateway.features.schedules.feature import feature as schedules
from gateway.features.schedules.leaving import ScheduleLeaving
from gateway.store.agents.leaving import Leavings

FEATURES: tuple[Plug, ...] = (
    attachments,
    notifications,
    operations,
    schedules,
)

# What these features keep for agents, for commands that work on the database without a gateway.
LEAVINGS: Leavings = (WebhookLeaving(), ScheduleLeaving())
