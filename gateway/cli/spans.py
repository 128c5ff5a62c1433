"""Spans of time on the command line: `90`, `15m`, `4h`, `2d`; in seconds."""

import re

import typer

_SPAN = re.compile(r"([0-9]{1,9})([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds_of(text: str | int) -> int:
    found = _SPAN.fullmatch(str(text))  # a default is a number already
    if found is None:
        raise typer.BadParameter("write seconds, or a number with s, m, h or d, such as 15m")
    return int(found[1]) * _SECONDS[found[2]]
