"""Failures a command may end with: expected ones are shown as their text, others in one line without a traceback."""

import typer

from gateway.config.settings import Config, ConfigError
from gateway.journal.failures import frames, reason
from gateway.net.tls import TlsError
from gateway.postgres.home import EmbeddedError
from gateway.protocol.errors import AMTPError
from gateway.store.migrate import SchemaError
from gateway.store.sealed import SealError


class StartError(Exception):
    """A gateway that can't start, or can't be reached from here; the text gives cause and remedy."""


# Failures that say what to do; anything else is a fault of ours.
EXPECTED = (AMTPError, ConfigError, EmbeddedError, SchemaError, SealError, StartError, TlsError)


def explained(failure: AMTPError, config: Config) -> StartError:
    """Returns the failure of an unavailable database with its cause and remedy."""
    cause = failure.__cause__
    if cause is None:
        return StartError(str(failure))
    remedy = "Check that it runs and that database.url leads to it." if config.database.url else ""
    return StartError(f"The database can't be used: {reason(cause)}. {remedy}".rstrip())


def tell(failure: BaseException) -> None:
    """Prints the failure on stderr."""
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    if isinstance(failure, EXPECTED):
        text = str(failure)
    else:
        text = f"A fault of the gateway itself: {type(failure).__name__} at {frames(failure)}"
    for line in text.splitlines():
        typer.echo(f"amtp: {line}", err=True)
