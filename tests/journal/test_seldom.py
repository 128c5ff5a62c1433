"""What strangers cause at will is told once a minute, with a count."""

from gateway.journal.seldom import KNOWN_MAX, Seldom


class Hand:
    """A clock turned by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_first_is_told_at_once_and_the_next_line_says_how_many_went_untold() -> None:
    clock = Hand()
    seldom = Seldom(clock)
    assert [seldom.due("guess") for _ in range(5)] == [0, None, None, None, None]
    clock.now = 59.9
    assert seldom.due("guess") is None
    clock.now = 60.0
    assert seldom.due("guess") == 5


def test_one_thing_does_not_hush_another() -> None:
    seldom = Seldom(Hand())
    assert [seldom.due(thing) for thing in ("one", "other", "one")] == [0, 0, None]


def test_however_many_things_a_stranger_makes_up_the_lines_of_a_minute_are_bounded() -> None:
    clock = Hand()
    seldom = Seldom(clock)
    told = sum(seldom.due(f"client {number}") is not None for number in range(KNOWN_MAX * 3))
    assert told <= KNOWN_MAX + 1
    clock.now = 61.0
    assert seldom.due("somebody new") == 0
