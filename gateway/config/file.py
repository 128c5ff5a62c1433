"""YAML parsed into nodes that remember their line, with only the features a configuration needs.

No anchors, aliases or tags (a few lines of them can stand for gigabytes), no duplicate keys, a bounded
depth and size. Scalars stay text; the setting that reads one parses it.
"""

from __future__ import annotations

from collections import abc
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

FILE_BYTES_MAX = 1_000_000  # ten times what a thousand peers need; more is a mistake or an attack
DEFAULT_FILE = Path("amtp.yaml")
DEPTH_MAX = 16  # we need four
_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # libyaml's reader is ten times faster


@dataclass(frozen=True, slots=True)
class Scalar:
    text: str
    where: str  # "amtp.yaml:12", or the environment variable
    plain: bool = True  # written without quotes, so that `null` can mean "not given"
    literal: bool = False  # from the environment: `${…}` in it is not expanded

    @property
    def absent(self) -> bool:
        return self.plain and self.text in ("", "~", "null")


@dataclass(frozen=True, slots=True)
class Sequence:
    items: tuple[Node, ...]
    where: str


@dataclass(frozen=True, slots=True)
class Mapping:
    entries: dict[str, Node] = field(default_factory=dict)
    where: str = ""


Node = Scalar | Sequence | Mapping


class BadFile(Exception):
    """A text that is no configuration; the message says where and why."""


def find_file(given: Path | None, environ: abc.Mapping[str, str]) -> Path | None:
    """Returns the file to read: the given one, else $AMTP_CONFIG, else amtp.yaml in this folder if it exists."""
    if given or environ.get("AMTP_CONFIG"):
        return given or Path(environ["AMTP_CONFIG"])
    return DEFAULT_FILE if DEFAULT_FILE.exists() else None


def read_text(path: Path) -> str:
    """Returns the file's text; raises Refused with a remedy."""
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise BadFile(
            f"{path}: can't be read ({error.strerror}); check the path and its permissions"
        ) from None
    if len(raw) > FILE_BYTES_MAX:
        raise BadFile(f"{path}: is larger than {FILE_BYTES_MAX} bytes; a configuration is a few kilobytes")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise BadFile(f"{path}:{line}: is not UTF-8 text; save the file as UTF-8") from None


def parse_yaml(text: str, name: str, faults: list[str]) -> Node:
    """Parses one document into nodes. Adds duplicate keys to `faults`; raises Refused for what can't be read."""
    events = yaml.parse(text, Loader=_LOADER)
    try:
        node = _document(_Reading(name, events, faults))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark is not None else ""
        raise BadFile(f"{name}{line}: is not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError:
        raise BadFile(f"{name}: is not YAML: it contains a character that text can't contain") from None
    return node


@dataclass(frozen=True, slots=True)
class _Reading:
    name: str
    events: abc.Iterator[yaml.Event]
    faults: list[str]

    def where(self, event: yaml.Event) -> str:
        return f"{self.name}:{event.start_mark.line + 1}" if event.start_mark else self.name


def _document(reading: _Reading) -> Node:
    node: Node | None = None
    for event in reading.events:
        if isinstance(event, (yaml.StreamStartEvent, yaml.StreamEndEvent)):
            continue
        if isinstance(event, (yaml.DocumentStartEvent, yaml.DocumentEndEvent)):
            continue
        if node is not None:
            raise BadFile(f"{reading.where(event)}: holds a second document; a configuration is one document")
        node = _node(event, reading, 1)
    return node if node is not None else Mapping()


def _node(event: yaml.Event, reading: _Reading, depth: int) -> Node:
    where = reading.where(event)
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
        raise BadFile(f"{where}: uses an anchor or alias (& or *); write the value out, or quote the text")
    if getattr(event, "tag", None):
        raise BadFile(f"{where}: uses a tag (!); write the value without it, or quote the text")
    if depth > DEPTH_MAX:
        raise BadFile(f"{where}: is nested deeper than {DEPTH_MAX} levels")
    match event:
        case yaml.ScalarEvent():
            return Scalar(event.value, where, plain=event.implicit[0])
        case yaml.SequenceStartEvent():
            return Sequence(tuple(_items(reading, depth)), where)
        case _:
            return _mapping(where, reading, depth)


def _items(reading: _Reading, depth: int) -> abc.Iterator[Node]:
    while not isinstance(event := next(reading.events), yaml.SequenceEndEvent):
        yield _node(event, reading, depth + 1)


def _mapping(where: str, reading: _Reading, depth: int) -> Mapping:
    entries: dict[str, Node] = {}
    while not isinstance(event := next(reading.events), yaml.MappingEndEvent):
        key = _node(event, reading, depth + 1)
        if not isinstance(key, Scalar):
            raise BadFile(f"{key.where}: has a list or mapping as a key; keys are plain words")
        value = replace(_node(next(reading.events), reading, depth + 1), where=key.where)
        if key.text in entries:
            first = entries[key.text].where.rpartition(":")[2]
            reading.faults.append(
                f"{key.where}: {key.text} is given twice (first on line {first}); remove one"
            )
            continue
        entries[key.text] = value
    return Mapping(entries, where)
