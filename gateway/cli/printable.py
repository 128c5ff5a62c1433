"""Text from strangers made safe for terminals: no control characters, no change of writing direction."""

import json
import re

_STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    return _STEERING.sub("\N{REPLACEMENT CHARACTER}", text)


def plain_json(value: object) -> str:
    """Returns indented JSON with such characters escaped."""
    lines = json.dumps(value, indent=2, ensure_ascii=False).split("\n")
    return "\n".join(_STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", line) for line in lines)
