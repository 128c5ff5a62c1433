"""Log lines: one per event, text for a terminal or JSON for machines, safe to print, cheap to write.

Lines are buffered and written together at the next iteration of the event loop, so that a thousand messages cost one
write. Values from outside can't end a line, start another, or control a terminal.
"""

import asyncio
import re
import time
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
FIELD_CHARACTERS_MAX = 500  # enough for a reason, too short for a body
LINES_WAITING_MAX = 1000  # then they are written at once, so that a burst is bounded

_encoder = msgspec.json.Encoder(enc_hook=str)
_NOT_PRINTABLE = re.compile(r"[^\x20-\x7e]")


class LogWriter:
    """A writer of events to a stream. `form` is auto (text on a terminal, else JSON), text or json."""

    def __init__(self, stream: TextIO, form: str, level: str) -> None:
        self._stream = stream
        self._lines: list[str] = []
        self.adopt(form, level)

    def adopt(self, form: str, level: str) -> None:
        """Applies another form and level from the next event on, after a reload."""
        self._render = _json if form == "json" or (form == "auto" and not self._stream.isatty()) else _text
        self._least = LEVELS[level]

    def write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        if LEVELS[level] < self._least:
            return
        self._lines.append(self._render(time.time(), level, event, fields))
        if len(self._lines) == 1:
            try:
                asyncio.get_running_loop().call_soon(self.flush)
            except RuntimeError:  # no loop runs: a command, or the end of a process
                self.flush()
        elif len(self._lines) >= LINES_WAITING_MAX:
            self.flush()

    def flush(self) -> None:
        if not self._lines:
            return
        text = "".join(self._lines)
        self._lines.clear()
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            return  # nobody reads the log any more; mail is not lost because of that


def _json(now: float, level: str, event: str, fields: dict[str, Any]) -> str:
    record = {"time": datetime.fromtimestamp(now, UTC), "level": level, "event": event} | fields
    try:
        line = _encode(record)
    except UnicodeEncodeError:  # lone surrogates, as in a header or file name that is no UTF-8
        line = ""
    if not line or len(line) > FIELD_CHARACTERS_MAX:
        line = _encode({name: _plain(value) for name, value in record.items()})
    return escaped(line) + "\n"


def _encode(record: dict[str, Any]) -> str:
    return _encoder.encode(record).decode()


def _text(now: float, level: str, event: str, fields: dict[str, Any]) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(now))
    parts = [f"{name}={_quoted(str(_plain(value)))}" for name, value in fields.items()]
    line = f"{clock} {level if level != 'info' else '':7} {event:18} {' '.join(parts)}"
    return escaped(line.rstrip()) + "\n"


def _plain(value: Any) -> Any:
    """Returns a text cut to the maximal length, as valid UTF-8; other values unchanged."""
    if not isinstance(value, str):
        return value
    text = value if len(value) <= FIELD_CHARACTERS_MAX else value[:FIELD_CHARACTERS_MAX] + "…"
    return text.encode("utf-8", "replace").decode()


def _quoted(text: str) -> str:
    """Quotes a text that is not one word, with escapes, so that a value can't look like another field."""
    if text and not any(character in text for character in ' "='):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def escaped(text: str) -> str:
    """Returns the text with all characters that are not printable as \\u escapes."""
    return text if text.isprintable() else _NOT_PRINTABLE.sub(_json_escape, text)


def _json_escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if match[0].isprintable():
        return match[0]
    if code < 0x10000:
        return f"\\u{code:04x}"
    return f"\\u{0xD7C0 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
