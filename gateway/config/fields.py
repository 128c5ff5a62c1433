"""Reading of nodes and environment variables into frozen dataclasses, driven by the dataclasses' own fields.

A setting is declared once, with its type, default, range and one line of explanation; reading, the names
of variables, the example file and the messages about faults all come from that declaration. Faults are
collected, so that one start shows all of them.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import operator
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, Field, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from gateway.config import file as config_file
from gateway.config.file import BadFile, Node, Scalar, Sequence, parse_yaml
from gateway.config.values import PARSERS, Secret

PREFIX = "AMTP_"
FAULTS_MAX = 50  # a wrong file has a handful; more are not read
SECRET_BYTES_MAX = 65_536
_REFERENCE = re.compile(r"\$(\$?)\{([^}]*)\}")
_BAD = object()  # replaces a faulty value; its default is used while the rest is checked


def setting(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    check: Callable[[Any], Any] | None = None,
    readable: bool = False,
) -> Any:
    """Declares one setting; one with MISSING as default is required. `check` returns the value or raises ValueError."""
    metadata = {"doc": doc, "low": low, "high": high, "check": check, "readable": readable}
    return field(default=default, metadata=metadata) if default is not MISSING else field(metadata=metadata)


def table(doc: str, key_check: Callable[[str], str]) -> Any:
    """Declares a mapping of names to sections, empty unless given."""
    return field(default_factory=dict, metadata={"doc": doc, "key_check": key_check})


def section(kind: Callable[[], Any], doc: str) -> Any:
    """Declares a part of the configuration that has settings of its own."""
    return field(default_factory=kind, metadata={"doc": doc})


def hints_of(kind: Any) -> dict[str, Any]:
    """Returns field names with their types, without `| None`."""
    return {name: _required(hint) for name, hint in typing.get_type_hints(kind).items()}


def _required(hint: Any) -> Any:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return functools.reduce(operator.or_, (kind for kind in kinds if kind is not types.NoneType))


def is_section(hint: Any) -> bool:
    return is_dataclass(hint) and hint not in PARSERS


def is_composite(hint: Any) -> bool:
    """Returns whether it has keys inside, so that a variable for it holds YAML."""
    return typing.get_origin(hint) is dict or any(is_section(kind) for kind in typing.get_args(hint))


def names_of(kind: Any) -> dict[str, str]:
    """Returns all names a section knows, with their fields: `token_file` is for `token`."""
    names: dict[str, str] = {}
    for name, hint in hints_of(kind).items():
        names[name] = name
        if hint is Secret:
            names[f"{name}_file"] = name
    return names


def variables_of(kind: Any) -> dict[str, tuple[str, ...]]:
    """Returns all environment variables with the key paths they override."""
    found: dict[str, tuple[str, ...]] = {}
    for name, hint in hints_of(kind).items():
        inner = names_of(hint) if is_section(hint) else {}
        paths: list[tuple[str, ...]] = [(name, key) for key in inner] or [(name,)]
        found |= {PREFIX + "_".join(path).upper(): path for path in paths}
    return found


def keys_of(kind: Any, prefix: str = "") -> list[str]:
    """Returns all dotted keys, for hints about a misplaced key."""
    keys: list[str] = []
    for name, hint in hints_of(kind).items():
        keys += keys_of(hint, f"{prefix}{name}.") if is_section(hint) else [prefix + name]
    return keys


def nearest(name: str, known: Collection[str], elsewhere: Collection[str] = ()) -> str:
    """Returns ' (did you mean …?)' or an empty text."""
    close = difflib.get_close_matches(name, known, 1) or [
        k for k in elsewhere if k.rpartition(".")[2] == name
    ]
    return f" (did you mean {close[0]}?)" if close else ""


@dataclass(slots=True)
class ConfigReader:
    """A builder of sections from nodes; collects all faults, and where each key was given."""

    environ: Mapping[str, str]
    folder: Path  # relative paths in the file start here
    all_keys: Collection[str]  # for hints about keys in the wrong place
    faults: list[str] = field(default_factory=list)
    bad: set[str] = field(default_factory=set)  # key paths that have a fault already
    where: dict[str, str] = field(default_factory=dict)  # key path to its line or variable

    def fault(self, path: str, text: str, where: str | None = None) -> None:
        place = where or self.where.get(path)
        self.bad.add(path)
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(f"{place}: {path} {text}" if place else f"{path} {text}")

    def spoiled(self, key: str) -> bool:
        """Returns whether this key or one below it has a fault."""
        return any(path == key or path.startswith((f"{key}.", f"{key}[")) for path in self.bad)

    def override(self, root: config_file.Mapping, kind: Any, allowed: Callable[[str], bool]) -> None:
        """Puts AMTP_… variables into the tree. They override the file; an empty one is ignored."""
        known = variables_of(kind)
        for name in sorted(name for name in self.environ if name.startswith(PREFIX)):
            if name in known and self.environ[name]:
                self._override_one(root, kind, known[name], name)
            elif name not in known and not allowed(name):
                self.fault(
                    name, f"is not a known variable{nearest(name, known)}; rename or unset it", "environment"
                )

    def _override_one(self, root: config_file.Mapping, kind: Any, path: tuple[str, ...], name: str) -> None:
        node: Node = Scalar(self.environ[name], name, plain=False, literal=True)
        if len(path) == 1 and is_composite(hints_of(kind)[path[0]]):
            try:
                node = parse_yaml(self.environ[name], name, self.faults)
            except BadFile as refused:
                self.faults.append(str(refused))
                return
        for step in path[:-1]:
            inner = root.entries.get(step)
            if not isinstance(inner, config_file.Mapping):
                inner = root.entries[step] = config_file.Mapping({}, name)
            root = inner
        self._drop_variant(root, path[-1])
        root.entries[path[-1]] = node

    @staticmethod
    def _drop_variant(parent: config_file.Mapping, key: str) -> None:
        """Removes the other variant: AMTP_X_URL_FILE also replaces the file's `url`, and vice versa."""
        other = key.removesuffix("_file") if key.endswith("_file") else f"{key}_file"
        node = parent.entries.get(other)
        if isinstance(node, Scalar) and not node.literal:
            del parent.entries[other]

    def section(self, kind: Any, node: Node, path: str) -> Any:
        """Builds the dataclass from a node; a faulty field keeps its default."""
        if not isinstance(node, config_file.Mapping):
            self.fault(path, "must be a mapping of keys to values", node.where)
            return _BAD
        known = names_of(kind)
        for name in (name for name in node.entries if name not in known):
            if len(self.faults) >= FAULTS_MAX:
                break  # looking for near names is slow
            hint = nearest(name, known, self.all_keys)
            self.fault(
                _join(path, name), f"is not a known key{hint}; rename or remove it", node.entries[name].where
            )
        hints, specs = hints_of(kind), dataclasses.fields(kind)
        members = {spec.name: self._member(spec, hints[spec.name], node, path) for spec in specs}
        good = {name: value for name, value in members.items() if value is not _BAD}
        return _BAD if any(_is_required(spec) and spec.name not in good for spec in specs) else kind(**good)

    def _member(self, spec: Field[Any], hint: Any, parent: config_file.Mapping, prefix: str) -> Any:
        path = _join(prefix, spec.name)
        names = [spec.name, f"{spec.name}_file"] if hint is Secret else [spec.name]
        given = [(name, node) for name in names if (node := _present(parent, name))]
        match given:
            case []:
                if _is_required(spec):
                    self.fault(path, "is missing; add it", parent.where)
                return _BAD
            case [(name, node)]:
                self.where[path] = node.where
                read = self._secret_file if name != spec.name else self._value
                return read(hint, spec.metadata, node, path)
            case _:
                self.fault(path, f"is given twice, as {' and '.join(names)}; keep one", given[0][1].where)
                return _BAD

    def _value(self, hint: Any, rule: Mapping[str, Any], node: Node, path: str) -> Any:
        if is_section(hint):
            return self.section(hint, node, path)
        if typing.get_origin(hint) is dict:
            return self._table(hint, rule, node, path)
        if typing.get_origin(hint) is tuple:
            return self._list(hint, rule, node, path)
        return self._scalar(hint, rule, node, path)

    def _table(self, hint: Any, rule: Mapping[str, Any], node: Node, path: str) -> Any:
        if not isinstance(node, config_file.Mapping):
            self.fault(path, "must be a mapping of names to settings", node.where)
            return _BAD
        table: dict[str, Any] = {}
        for written, child in node.entries.items():
            place = _join(path, written)
            try:
                name = rule["key_check"](written)
            except ValueError as error:
                self.fault(place, str(error), child.where)
                continue
            self.where[place] = child.where
            if name in table:
                self.fault(place, f"is given twice, as {name} in two spellings; remove one", child.where)
            table[name] = self._value(typing.get_args(hint)[1], {}, child, place)
        return _BAD if any(value is _BAD for value in table.values()) else table

    def _list(self, hint: Any, rule: Mapping[str, Any], node: Node, path: str) -> Any:
        kind = typing.get_args(hint)[0]
        match node:
            case Sequence(items):
                nodes = list(items)
            case Scalar(text) if not is_section(kind):  # `a, b` as an environment variable writes it
                parts = [part.strip() for part in text.split(",")]
                nodes = [replace(node, text=part) for part in parts if part]
            case _:
                self.fault(path, "must be a list, each item on a line after a dash", node.where)
                return _BAD
        self.where |= {f"{path}[{i}]": item.where for i, item in enumerate(nodes)}
        values = [self._value(kind, rule, item, f"{path}[{i}]") for i, item in enumerate(nodes)]
        return _BAD if any(value is _BAD for value in values) else tuple(values)

    def _scalar(self, hint: Any, rule: Mapping[str, Any], node: Node, path: str) -> Any:
        if not isinstance(node, Scalar):
            self.fault(path, "must be a single value, not a list or mapping", node.where)
            return _BAD
        shown = "" if hint is Secret or "@" in node.text else f" (given: {node.text[:60]!r})"
        try:
            value = _parse(hint, self._expanded(node))
            return self._checked(value, rule, node)
        except ValueError as error:
            self.fault(path, f"{error}{shown}", node.where)
            return _BAD

    def _checked(self, value: Any, rule: Mapping[str, Any], node: Scalar) -> Any:
        low, high = rule.get("low"), rule.get("high")
        if low is not None and high is not None and not low <= value <= high:
            raise ValueError(f"must be between {low} and {high}")
        if isinstance(value, Path):
            value = self._path(value, node)
            if rule.get("readable"):
                _read(value, 1)
        check = rule.get("check")
        return check(value) if check else value

    def _path(self, path: Path, node: Scalar) -> Path:
        path = path.expanduser() if str(path).startswith("~") else path
        return path if node.literal else self.folder / path

    def _expanded(self, node: Scalar) -> str:
        """Replaces `${NAME}` by the environment's value; `$${NAME}` stands for `${NAME}` itself."""

        def value(match: re.Match[str]) -> str:
            if match[1]:
                return match[0][1:]
            if match[2] not in self.environ:
                raise ValueError(
                    f"refers to ${{{match[2]}}}, which is not set; set it, or write $${{ for a plain ${{"
                )
            return self.environ[match[2]]

        return node.text if node.literal else _REFERENCE.sub(value, node.text)

    def _secret_file(self, hint: Any, rule: Mapping[str, Any], node: Node, path: str) -> Any:
        file = self._scalar(Path, {}, node, f"{path}_file")
        if file is _BAD:
            return _BAD
        try:
            text = _read(file, SECRET_BYTES_MAX).decode("utf-8").strip()
            if not text:
                raise ValueError(f"names {file}, which is empty; write the secret into it")
            return self._checked(_parse(hint, text), rule, Scalar(text, node.where, literal=True))
        except UnicodeDecodeError:
            self.fault(f"{path}_file", f"names {file}, which is not text", node.where)
        except ValueError as error:
            self.fault(f"{path}_file", str(error), node.where)
        return _BAD


def _parse(hint: Any, text: str) -> Any:
    if not text.isprintable():  # a line break in a key would end a header
        raise ValueError("contains a line break or another character that can't be printed")
    if typing.get_origin(hint) is not Literal:
        return PARSERS[hint](text)
    choices = typing.get_args(hint)
    if text not in choices:
        raise ValueError(f"must be one of {', '.join(choices)}{nearest(text, choices)}")
    return text


def _read(path: Path, size: int) -> bytes:
    try:
        if not path.is_file():
            raise ValueError(f"names {path}, which is no file; check the path")
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise ValueError(
            f"names {path}, which can't be read ({error.strerror}); check its permissions"
        ) from None


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _present(parent: config_file.Mapping, name: str) -> Node | None:
    """Returns the node of a key with a value; `key:` alone, as when all below it is commented out, has none."""
    node = parent.entries.get(name)
    return None if isinstance(node, Scalar) and node.absent else node


def _is_required(spec: Field[Any]) -> bool:
    return spec.default is MISSING and spec.default_factory is MISSING
