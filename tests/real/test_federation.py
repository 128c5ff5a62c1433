"""The stories of several gateways once more: signed names, port 443, and wires that are slow and lose packets."""

from tests.stories.test_federation import *  # noqa: F403
