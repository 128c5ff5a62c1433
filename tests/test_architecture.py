"""The house rules that a reader would otherwise have to take on trust.

A message moves one way through the gateway, and so do imports: a module may
import only from its own room or from a lower floor.
"""

import ast
import re
import sys
from pathlib import Path

import pytest

from gateway import __version__

GATEWAY = Path(__file__).parent.parent / "gateway"

# From the ground up. Rooms on one floor are strangers to each other.
FLOORS = [
    {"__init__", "protocol"},
    {"journal"},
    {"postgres", "net", "client"},
    {"config"},
    {"store"},
    {"admit", "http"},
    {"route"},
    {"deliver"},
    {"report"},
    {"flow"},
    {"receive"},
    {"features"},
    {"wiring"},
    {"serve"},
    {"cli"},
    {"__main__"},
]
FLOOR_OF = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}

# Each outside library may be spoken to only here; test doubles, nowhere.
KEEPERS: dict[str, set[str]] = {
    "asyncpg": {"store"},
    "dns": {"route/dns.py"},
    "aiohttp": {"http", "client"},
    "unittest": set(),
    "tests": set(),
}

# Pure modules decide. They never wait, read a clock or touch the world.
PURE = {
    path
    for pattern in (
        "protocol/*.py",
        "net/dns_answer.py",
        "net/http_answer.py",
        "net/http_request.py",
        "net/pace.py",
        "net/reachable.py",
        "route/decide.py",
        "route/destination.py",
        "deliver/answer.py",
        "receive/hops.py",
        "deliver/outcome.py",
        "deliver/push_message.py",
        "deliver/webhook_answer.py",
        "report/failures.py",
        "report/replies.py",
        "report/naming.py",
        "features/notifications/happenings.py",
        "features/notifications/events.py",
    )
    for path in GATEWAY.glob(pattern)
}
WORLD = {"asyncio", "logging", "os", "random", "secrets", "socket", "ssl", "time", "uuid6", *KEEPERS}

VAGUE = {"utils", "util", "helpers", "common", "misc", "manager", "handlers", "base", "types"}

MODULES = sorted(path for path in GATEWAY.rglob("*.py") if path != GATEWAY / "__init__.py")


def named(path: Path) -> str:
    return str(path.relative_to(GATEWAY))


def room_of(path: Path) -> str:
    return path.relative_to(GATEWAY).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


def neighbours_of(path: Path) -> set[Path]:
    """The gateway's own modules that this one imports."""
    neighbours = set()
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] != "gateway":
            continue
        module = GATEWAY.joinpath(*parts[1:]).with_suffix(".py")
        if not module.exists():  # `from gateway.room.module import Thing`
            module = GATEWAY.joinpath(*parts[1:-1]).with_suffix(".py")
        if not module.exists():  # `from gateway.room import Thing`
            module = GATEWAY.joinpath(*parts[1:-1]) / "__init__.py"
        assert module.exists(), f"{named(path)} imports {name}"
        neighbours.add(module)
    return neighbours


def libraries_of(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports_of(path)}


each_module = pytest.mark.parametrize("path", MODULES, ids=named)


@each_module
def test_a_module_imports_only_from_its_own_room_or_a_lower_floor(path: Path) -> None:
    here = room_of(path)
    for there in map(room_of, neighbours_of(path)):
        assert there == here or FLOOR_OF[there] < FLOOR_OF[here], f"{here} imports {there}"


def test_the_house_has_rooms_and_no_loose_module() -> None:
    loose = {path.name for path in GATEWAY.iterdir() if path.is_file()}
    assert loose == {"__init__.py", "__main__.py", "py.typed"}


@pytest.mark.parametrize("path", sorted(GATEWAY.glob("features/*/*.py")), ids=named)
def test_a_feature_knows_no_other_feature(path: Path) -> None:
    own = path.parent
    others = {there for there in neighbours_of(path) if there.is_relative_to(GATEWAY / "features")}
    assert all(there.is_relative_to(own) or there == GATEWAY / "features/feature.py" for there in others)


@each_module
def test_each_outside_library_is_spoken_to_only_by_its_keepers(path: Path) -> None:
    for library in libraries_of(path) & set(KEEPERS):
        assert any(named(path).startswith(keeper) for keeper in KEEPERS[library]), library


@pytest.mark.parametrize("path", sorted(PURE), ids=named)
def test_a_pure_module_reaches_neither_the_world_nor_anything_that_does(path: Path) -> None:
    assert not libraries_of(path) & WORLD
    assert neighbours_of(path) <= PURE


@each_module
def test_a_module_fits_in_the_head_and_a_function_on_a_screen(path: Path) -> None:
    source = path.read_text()
    assert len(source.splitlines()) <= 400
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 70, node.name


@each_module
def test_a_module_says_what_it_is_for_in_its_name_and_its_first_line(path: Path) -> None:
    assert path.stem not in VAGUE
    assert ast.get_docstring(ast.parse(path.read_text()))


# Words that begin a clause without a head ("What became of it"): a reader has to guess its subject.
HEADLESS = re.compile(
    r"(What|Who|Whoever|Whom|Whose|Whether|Those|Nobody|It|Where|When|How|Why|Of|So|As|In|With|From|For|Until|Never|Not"
    r"|Everything|Everybody|Everyone|All)\b"
)


@pytest.mark.parametrize("room", sorted(set(map(room_of, MODULES))))
def test_a_docstring_begins_with_a_noun_or_a_verb(room: str) -> None:
    headless = [
        f"{named(path)}: {words}"
        for path in MODULES
        if room_of(path) == room
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and HEADLESS.match(words := ast.get_docstring(node) or "")
    ]
    assert not headless


@pytest.mark.parametrize("path", sorted(GATEWAY.glob("store/migrations/*.sql")), ids=lambda path: path.stem)
def test_a_migration_declares_the_oldest_release_that_can_live_with_it(path: Path) -> None:
    first = path.read_text().partition("\n")[0]
    assert re.fullmatch(r"-- oldest: [0-9]+(\.[0-9]+)+", first), (
        f"{path.name} begins with: -- oldest: {__version__}"
    )


CLIENT = [path for path in MODULES if room_of(path) == "client"]


@pytest.mark.parametrize("path", CLIENT, ids=named)
def test_the_client_knows_only_the_protocol_and_no_library_of_a_server(path: Path) -> None:
    assert {room_of(neighbour) for neighbour in neighbours_of(path)} <= {"client", "protocol"}
    assert libraries_of(path) - sys.stdlib_module_names <= {"gateway", "aiohttp", "msgspec"}


@each_module
def test_no_room_but_the_command_line_needs_the_client(path: Path) -> None:
    if room_of(path) not in {"client", "cli"}:
        assert "client" not in map(room_of, neighbours_of(path))


PAGES = [GATEWAY.parent / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES += sorted((GATEWAY.parent / "docs").glob("*.md"))
A_PATH = re.compile(r"`((?:[a-z_0-9.]+/)+[a-z_0-9]+\.[a-z]+|(?:[a-z_0-9]+/)+)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_that_a_page_names_is_there(page: Path) -> None:
    missing = [
        name
        for name in sorted(set(A_PATH.findall(page.read_text())))
        if not name.startswith("data/")  # a running gateway's own
        and not (GATEWAY.parent / name).exists()
        and not (GATEWAY / name).exists()
    ]
    assert not missing


def test_the_name_of_a_class_stands_for_one_thing() -> None:
    named_at: dict[str, list[str]] = {}
    for path in MODULES:
        if room_of(path) == "client":  # has its own words for what it shows
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                named_at.setdefault(node.name, []).append(named(path))
    assert not {name: paths for name, paths in named_at.items() if len(paths) > 1}


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Nor for types alone: what a module can't be read without is below it."""
    left = {path: neighbours_of(path) - {path} for path in MODULES}
    while free := [path for path, needs in left.items() if not needs & left.keys()]:
        for path in free:
            del left[path]
    assert not {named(path): sorted(map(named, needs & left.keys())) for path, needs in left.items()}
