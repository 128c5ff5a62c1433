"""Moved: conformance.fake_peer."""

from conformance.fake_peer import *  # noqa: F403
