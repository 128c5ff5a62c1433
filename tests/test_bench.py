"""The arithmetic of the bench's report on two commits; what it measures is never a test's business."""

import pytest

from tests.bench.against import lines, paired
from tests.bench.figures import Figure, Run


def accept(value: float, gateway: float, client: float = 1) -> Figure:
    microseconds = {"gateway": gateway, "postgres": 30.0, "client": client}
    return Figure("durable accept", "msg/s", [Run(value, microseconds, {"gateway": 80.0})], floor=12_000)


def test_the_ratio_compares_the_medians_of_all_rounds_by_process() -> None:
    here = [[accept(10_000, 70)], [accept(5000, 99)], [accept(10_100, 72)]]
    there = [[accept(10_000, 80)], [accept(10_000, 80)], [accept(10_000, 80)]]

    (pair,) = paired(here, there)

    assert pair.ratios == {"gateway": pytest.approx(72 / 80), "postgres": 1.0}
    assert not pair.costly
    assert [run.value for run in pair.here.runs] == [10_000, 5000, 10_100]


def test_more_than_a_tenth_is_told_and_the_load_is_not_counted() -> None:
    (dear,) = paired([[accept(10_000, 89)]], [[accept(10_000, 80, client=9)]])
    (same,) = paired([[accept(10_000, 80, client=9)]], [[accept(10_000, 80)]])

    assert dear.costly
    assert "MORE" in lines(dear, "v1")
    assert not same.costly


def test_a_row_without_messages_compares_its_figures() -> None:
    here, there = (Figure("memory", "MB", [Run(value)], floor=60, small=True) for value in (30, 20))

    (pair,) = paired([[here]], [[there]])

    assert pair.ratios == {"figure": 1.5}
    assert not pair.costly


def test_floors_stand_beside_this_tree_and_not_beside_the_other() -> None:
    (pair,) = paired([[accept(9000, 80)]], [[accept(9000, 80)]])

    here, there, *_ = lines(pair, "v1").splitlines()

    assert here.startswith("MISS")
    assert ">= 12,000" in here
    assert "12,000" not in there
