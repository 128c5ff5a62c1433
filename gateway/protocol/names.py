"""Names of members that a reader could mistake for known ones, and names that look misspelt.

Many JSON readers ignore case, some more than that. A message that holds both `gateway` and `Gateway` would say one
thing to one program and another to the next, so a name that folds onto a known one is refused (1). A name that is
merely close to a known one passes, and its sender is warned (2).
"""

import re
from collections.abc import Collection
from difflib import get_close_matches
from functools import lru_cache
from unicodedata import category, normalize

from gateway.protocol.errors import AMTPError, Code

NAME_CHARACTERS_MAX = 64  # of a name that is remembered or warned of; the longest known one has 19
NAMES_REMEMBERED = 4096
WARNINGS_MAX = 10
JUDGED_MAX = 32  # unknown members: a message with more has a vocabulary of its own
SIMILARITY = 0.8  # idempotency_kye, subjet, time_stamp, workflow; not sender_name

# Nothing to fold: ASCII without capitals and blanks.
_PLAIN = re.compile(r"[!-@\[-~]*")
# Blanks, controls and formats; and letters, marks and symbols that show nothing either.
_ASCII_UNSEEN = dict.fromkeys((*range(33), 127))
_UNSEEN = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})
_FILLERS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_I = {
    0x130: "i",
    0x131: "i",
    0x307: None,
}  # Java equates the Turkish ones with i; folding splits a dot off one
_SEPARATORS = re.compile("[_-]")


class Names:
    """The known names of one object; names that resemble a `sealed` one even apart from separators are refused."""

    def __init__(self, known: Collection[str], sealed: Collection[str] = ()) -> None:
        self._all = frozenset(known) | frozenset(sealed)
        self._folded = {fold(name): name for name in self._all}
        self._sealed = {_joined(name): name for name in sealed}
        self._joined = {_joined(name): name for name in known}
        self._near = lru_cache(NAMES_REMEMBERED)(self._nearest)

    def unknown(self, names: Collection[str], place: str = "") -> set[str]:
        """Returns the names that are not known; raises for one that could be taken for a known one. `place`: "headers."."""
        strange = set(names) - self._all
        if strange and (self._sealed or not _PLAIN.fullmatch("".join(strange))):
            for name in strange:
                self._check(name, place)
        return strange

    def _check(self, name: str, place: str) -> None:
        folded = fold(name)
        known = self._folded.get(folded) or self._sealed.get(_SEPARATORS.sub("", folded))
        if known is not None:
            shown = f"{place}{ascii(name[:NAME_CHARACTERS_MAX])[1:-1]}"
            raise AMTPError(
                Code.INVALID_MESSAGE_FORMAT,
                f"{shown} could be read as {place}{known}: write it so, or choose another name",
                {"field": shown, "nearest": known},
            )

    def misspelt(self, strange: Collection[str]) -> tuple[tuple[str, str], ...]:
        """Returns each of these unknown names that is close to a known one, with that one."""
        if len(strange) > JUDGED_MAX:
            return ()
        pairs = ((name, self._near(name)) for name in sorted(strange) if len(name) <= NAME_CHARACTERS_MAX)
        return tuple((name, near) for name, near in pairs if near is not None)[:WARNINGS_MAX]

    def _nearest(self, name: str) -> str | None:
        near = get_close_matches(_joined(name), self._joined, 1, SIMILARITY)
        return self._joined[near[0]] if near else None


def nearest(name: str, known: Collection[str]) -> str | None:
    """Returns the known name that is closest to this one; None where none is near."""
    near = get_close_matches(name[:NAME_CHARACTERS_MAX].casefold(), known, 1)
    return near[0] if near else None


def fold(name: str) -> str:
    """Returns the name as the most lenient reader compares it; "" where it is too long to be taken for a known one."""
    if name.isascii():
        folded = name.lower().translate(_ASCII_UNSEEN)
        return folded if len(folded) <= NAME_CHARACTERS_MAX else ""
    unseen = {ord(each): None for each in set(name) if category(each) in _UNSEEN}
    seen = _FILLERS.sub("", name.translate(unseen))
    if len(seen) > NAME_CHARACTERS_MAX:
        return ""
    return normalize("NFKC", normalize("NFKC", seen.translate(_I)).casefold().translate(_I))


def _joined(name: str) -> str:
    return _SEPARATORS.sub("", name.casefold())
