"""Moved: conformance.dns_server."""

from conformance.dns_server import *  # noqa: F403
