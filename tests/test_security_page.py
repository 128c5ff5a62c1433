"""SECURITY.md tells the truth: each limit it names exists with that default, and so does each command."""

import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main

from gateway.cli.main import app
from gateway.config.settings import Config

PAGE = (Path(__file__).parent.parent / "SECURITY.md").read_text()
UNITS = {"": 1, "%": 1, "s": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3}
NAMED = sorted(set(re.findall(r"`([a-z]+\.[a-z_]+)`", PAGE)) - {"secrets.key"})
ROWS = re.findall(r"^\| `([a-z_.]+)` \| ([0-9 ]+?) ?(%|s|KB|MB|GB|) \|", PAGE, re.MULTILINE)
COMMANDS = sorted(set(re.findall(r"^ +amtp (.+)$", PAGE, re.MULTILINE)))


def default_of(name: str) -> Any:
    value: Any = Config()
    for part in name.split("."):
        assert is_dataclass(value)
        assert part in {field.name for field in fields(value)}, f"{name} is no setting"
        value = getattr(value, part)
    return value


def test_the_page_names_limits_and_commands() -> None:
    assert len(ROWS) > 20
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize("name", NAMED)
def test_every_setting_it_names_exists(name: str) -> None:
    default_of(name)


@pytest.mark.parametrize(("name", "number", "unit"), ROWS, ids=[name for name, _, _ in ROWS])
def test_every_default_is_the_one_in_force(name: str, number: str, unit: str) -> None:
    assert default_of(name) == int(number.replace(" ", "")) * UNITS[unit]


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_and_option_exists(words: str) -> None:
    command: Any = typer.main.get_command(app)
    arguments = words.split()
    while hasattr(command, "commands"):
        command = command.commands[arguments.pop(0)]
    known = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in arguments if word.startswith("--")} <= known
