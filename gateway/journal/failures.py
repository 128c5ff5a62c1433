"""What can be told of a failure without telling what was at hand when it happened."""

import traceback
from pathlib import Path

FRAMES_SHOWN = 6
_HOUSE = Path(__file__).parent


def reason(failure: BaseException) -> str:
    """What failed, without values: a database's words about data would quote it."""
    state = getattr(failure, "sqlstate", None)
    speaks = isinstance(failure, OSError) or (state is not None and not str(state).startswith("22"))
    text = f": {failure}" if speaks and str(failure) else ""
    return f"{type(failure).__name__}{f' {state}' if state else ''}{text}"


def frames(failure: BaseException) -> str:
    """The innermost places the failure passed through."""
    places = traceback.extract_tb(failure.__traceback__)[-FRAMES_SHOWN:]
    return " > ".join(f"{_place(frame.filename)}:{frame.lineno} {frame.name}" for frame in places)


def _place(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(_HOUSE.parent)) if path.is_relative_to(_HOUSE) else path.name
