"""The hops of a request from its Via headers, and the detection of mail loops. Pure.

`Via: 1.1 amtp.example.com, HTTP/2.0 proxy:8443 (comment)`: protocol, host and perhaps a comment for each hop.
Proxies add hops, too, and count like gateways.
"""

import re
from collections.abc import Sequence
from typing import Final

from gateway.protocol.errors import AMTPError, Code

HOPS_MAX: Final = 25
OWN_HOPS_MAX: Final = 2  # a message may come back to us, as through a list; a third time is a loop
CHARACTERS_MAX: Final = 8190  # all Via headers together; 25 hops need a fifth of it
UNREADABLE: Final = "unknown"  # replaces a malformed hop, which still counts

_PIECE = re.compile(r"[^()\\]+|\\.?|[()]", re.DOTALL)
_HOP = re.compile(
    r"(?:[A-Za-z0-9!#$%&'*+.^_`|~-]+/)?[A-Za-z0-9.]+\s+([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?"
)


def hops_of(values: Sequence[str], hostname: str) -> tuple[str, ...]:
    """Returns the hosts a message passed, oldest first; raises LOOP_DETECTED if they, or our own passes, are too many."""
    written = ",".join(values)
    if not written:
        return ()
    if len(written) > CHARACTERS_MAX:
        raise _loop(f"its Via headers have more than {CHARACTERS_MAX} characters")
    hops = tuple(map(_host, filter(None, map(str.strip, _without_comments(written).split(",")))))
    if len(hops) > HOPS_MAX:
        raise _loop(f"it has passed more than {HOPS_MAX} hops")
    if hops.count(hostname) > OWN_HOPS_MAX:
        raise _loop(f"it has passed {hostname} {hops.count(hostname)} times")
    return hops


def _without_comments(written: str) -> str:
    """Removes comments, which stand in parentheses and nest; a backslash in them escapes a character."""
    if "(" not in written:
        return written
    kept, depth = [], 0
    for piece in _PIECE.findall(written):
        if piece == "(":
            depth += 1
        elif piece == ")":
            depth = max(depth - 1, 0)
        elif not depth:
            kept.append(piece)
    return "".join(kept)


def _host(hop: str) -> str:
    match = _HOP.fullmatch(hop)
    return match[1].lower() if match else UNREADABLE


def _loop(reason: str) -> AMTPError:
    return AMTPError(
        Code.LOOP_DETECTED,
        f"The message goes in circles: {reason}. Check which gateways the domains on its way name.",
        {"field": "Via"},
    )
