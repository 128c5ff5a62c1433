"""Routing of libraries' logs to the journal: one format for every line, and no traceback."""

import logging

from gateway.config.sections import LogSettings
from gateway.journal.journal import Journal
from gateway.journal.log_writer import LEVELS
from gateway.store.database import WEATHER


class JournalHandler(logging.Handler):
    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        failure = record.exc_info[1] if record.exc_info else None
        if isinstance(failure, WEATHER) and record.name.startswith("asyncpg"):
            self._journal.database_lost(failure)  # its pool connects again by itself
        elif failure is not None:
            # Later lines hold values, which may be people's mail.
            self._journal.broke(f"{record.name}: {text.partition(chr(10))[0]}", failure)
        else:
            self._journal.noted(_level(record.levelno), text)


def route_logs(journal: Journal, log: LogSettings) -> None:
    """Routes what libraries log to the journal, from the level in `log` upwards."""
    root = logging.getLogger()
    root.handlers[:] = [JournalHandler(journal)]
    root.setLevel(log.level.upper())
    logging.captureWarnings(True)


def _level(number: int) -> str:
    return max(
        (level for level in LEVELS if LEVELS[level] <= number), key=LEVELS.__getitem__, default="debug"
    )
