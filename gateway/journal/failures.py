"""Descriptions of failures without the values involved, which may be people's mail."""

import traceback
from pathlib import Path

FRAMES_SHOWN = 6
_HOUSE = Path(__file__).parent


def reason(failure: BaseException) -> str:
    """Returns what failed, without values: a database's error text about data would quote it."""
    state = getattr(failure, "sqlstate", None)
    speaks = isinstance(failure, OSError) or (state is not None and not str(state).startswith("22"))
    text = f": {failure}" if speaks and str(failure) else ""
    return f"{type(failure).__name__}{f' {state}' if state else ''}{text}"


def frames(failure: BaseException) -> str:
    """Returns the innermost frames of the failure's traceback."""
    places = traceback.extract_tb(failure.__traceback__)[-FRAMES_SHOWN:]
    return " > ".join(f"{_place(frame.filename)}:{frame.lineno} {frame.name}" for frame in places)


def _place(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(_HOUSE.parent)) if path.is_relative_to(_HOUSE) else path.name
