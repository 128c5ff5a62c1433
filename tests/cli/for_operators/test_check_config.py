"""`amtp check-config`, as an operator calls it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

from gateway.config.show import example

COMMAND = [sys.executable, "-c", "from gateway.cli.main import main; main()", "check-config"]


def check(
    folder: Path, text: str | None, *arguments: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    if text is not None:
        (folder / "amtp.yaml").write_text(text)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AMTP_")}
    return subprocess.run(
        [*COMMAND, *arguments], cwd=folder, env=clean | environ, capture_output=True, text=True, timeout=60
    )


GOOD = "domains: [example.com]\n"
BAD = "domains: [example.com]\nlimit: {}\nlimits: {batch_messages: many}\n"


def test_a_good_file_is_called_good(tmp_path: Path) -> None:
    done = check(tmp_path, GOOD)
    assert (done.returncode, done.stdout) == (0, "amtp.yaml: good, for example.com.\n")


def test_a_bad_file_shows_every_fault_and_no_traceback(tmp_path: Path) -> None:
    done = check(tmp_path, BAD)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "amtp.yaml:2: limit is not a known key (did you mean limits?); rename or remove it",
        "amtp.yaml:3: limits.batch_messages must be a whole number (given: 'many')",
        "amtp.yaml: 2 faults.",
    ]


def test_programs_get_the_faults_as_json(tmp_path: Path) -> None:
    done = check(tmp_path, BAD, "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (1, "")
    assert (answer["ok"], answer["file"], len(answer["faults"])) == (False, "amtp.yaml", 2)


def test_programs_get_a_good_file_as_json_and_its_values_where_asked(tmp_path: Path) -> None:
    good = {"ok": True, "file": "amtp.yaml", "faults": []}
    assert json.loads(check(tmp_path, GOOD, "--json").stdout) == good
    shown = json.loads(check(tmp_path, GOOD, "--json", "--show").stdout)["config"]
    assert (shown["domains"], shown["limits"]["batch_messages"]) == (["example.com"], 256)


def test_what_is_in_force_is_shown_without_secrets(tmp_path: Path) -> None:
    done = check(tmp_path, GOOD, "--show", AMTP_DATABASE_URL="postgresql://u:geheim@db/amtp")
    assert done.returncode == 0
    assert yaml.safe_load(done.stdout)["database"]["url"] == "postgresql://…@db/amtp"
    assert "geheim" not in done.stdout + done.stderr


def test_the_example_is_printed(tmp_path: Path) -> None:
    assert check(tmp_path, None, "--example").stdout == example()


def test_without_a_file_the_environment_alone_counts(tmp_path: Path) -> None:
    done = check(tmp_path, None, AMTP_DOMAINS="example.com")
    assert (done.returncode, done.stdout) == (0, "environment: good, for example.com.\n")


def test_a_file_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    done = check(tmp_path, None, "nowhere.yaml")
    assert done.returncode == 1
    assert done.stderr.startswith("nowhere.yaml: can't be read (No such file or directory)")


def test_an_unknown_option_is_misuse(tmp_path: Path) -> None:
    assert check(tmp_path, GOOD, "--no-such-option").returncode == 2
