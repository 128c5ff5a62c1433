"""The way a request came, and where it ends for going in circles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.errors import AMTPError, Code
from gateway.receive.hops import CHARACTERS_MAX, HOPS_MAX, UNREADABLE, hops_of

OURS = "amtp.acme.test"


@pytest.mark.parametrize(
    ("values", "hops"),
    [
        ([], ()),
        ([""], ()),
        (["1.1 a.test"], ("a.test",)),
        (["1.1 a.test, 1.1 b.test"], ("a.test", "b.test")),
        (["1.1 a.test", "1.1 b.test"], ("a.test", "b.test")),
        (["1.1 a.test,,  ,1.1\tb.test"], ("a.test", "b.test")),
        (["HTTP/1.1 A.Test:8443"], ("a.test",)),
        (["2.0 [2001:db8::1]:443"], ("[2001:db8::1]",)),
        (["1.1 google", "1.0 fred"], ("google", "fred")),
        (["1.1 varnish (Varnish/6.0, of (course)), 1.1 b.test"], ("varnish", "b.test")),
        (["1.1 a.test (a smile \\) stays inside), 1.1 b.test"], ("a.test", "b.test")),
        (["1.1 a.test (never closed, 1.1 b.test"], ("a.test",)),
        (["nonsense, 1.1 b.test"], (UNREADABLE, "b.test")),
        (["1.1 a.test;x=y, 1.1 b.tëst"], (UNREADABLE, UNREADABLE)),
        (["1.1 " + "a" * 300], (UNREADABLE,)),
    ],
)
def test_the_hops_are_read_oldest_first(values: list[str], hops: tuple[str, ...]) -> None:
    assert hops_of(values, OURS) == hops


def test_what_was_read_is_read_the_same_at_the_next_hop() -> None:
    hops = hops_of(["HTTP/1.1 A.Test:1, nonsense, 2 [::1]"], OURS)
    assert hops_of([", ".join(f"1.1 {hop}" for hop in hops)], OURS) == hops


@pytest.mark.parametrize("count", [1, 2])
def test_a_message_may_come_back_to_us_twice(count: int) -> None:
    assert len(hops_of([f"1.1 {OURS}"] * count, OURS)) == count


@pytest.mark.parametrize(
    "values",
    [
        [f"1.1 {OURS}"] * 3,
        [f"1.1 {OURS}, 1.1 b.test", "1.1 AMTP.Acme.Test:443", f"2 {OURS} (again)"],
        [f"1.1 h{n}.test" for n in range(HOPS_MAX + 1)],
        ["nonsense"] * (HOPS_MAX + 1),
        ["1.1 a.test (" + "x" * CHARACTERS_MAX],
    ],
    ids=["own name", "own name, written variously", "too many", "too many unreadable", "too long"],
)
def test_a_message_that_goes_in_circles_is_refused(values: list[str]) -> None:
    with pytest.raises(AMTPError) as refusal:
        hops_of(values, OURS)
    assert refusal.value.code is Code.LOOP_DETECTED


def test_as_many_hops_as_the_limit_are_taken() -> None:
    assert len(hops_of([f"1.1 h{n}.test" for n in range(HOPS_MAX)], OURS)) == HOPS_MAX


vias = st.text(st.sampled_from('1. atps/:[](),\\\t"é-') | st.characters(max_codepoint=255), max_size=80)


@given(st.lists(vias, max_size=HOPS_MAX // 5))
def test_any_header_gives_hops_that_can_be_sent_on_or_a_loop(values: list[str]) -> None:
    try:
        hops = hops_of(values, OURS)
    except AMTPError as refusal:
        hops = (refusal.code.value,)
    assert hops == ("LOOP_DETECTED",) or len(hops) <= HOPS_MAX
    assert all(hop.isascii() and hop.isprintable() and not {" ", ","} & set(hop) for hop in hops)
