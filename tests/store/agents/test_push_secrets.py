"""Which secrets of a webhook sign, before, during and after a rotation."""

from datetime import UTC, datetime, timedelta

from gateway.store.agents.push_secrets import live_secrets, replace_secret

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
FIRST, SECOND, THIRD = "whsec_Zmlyc3Q=", "whsec_c2Vjb25k", "a-secret-of-their-own"


def test_a_secret_alone_signs_for_ever() -> None:
    assert live_secrets(FIRST, NOW + 1000 * DAY) == [FIRST]


def test_while_a_rotation_lasts_the_new_secret_signs_beside_the_old_one() -> None:
    text = replace_secret(FIRST, SECOND, NOW + DAY, NOW)
    assert live_secrets(text, NOW) == [SECOND, FIRST]
    assert live_secrets(text, NOW + DAY - timedelta(seconds=1)) == [SECOND, FIRST]
    assert live_secrets(text, NOW + DAY) == [SECOND]


def test_without_grace_the_old_secret_is_gone_at_once() -> None:
    assert replace_secret(FIRST, SECOND, NOW, NOW) == SECOND


def test_never_more_than_two_sign() -> None:
    text = replace_secret(replace_secret(FIRST, SECOND, NOW + DAY, NOW), THIRD, NOW + DAY, NOW)
    assert live_secrets(text, NOW) == [THIRD, SECOND]


def test_rotating_to_the_secret_in_force_keeps_it_alone() -> None:
    assert live_secrets(replace_secret(FIRST, FIRST, NOW + DAY, NOW), NOW) == [FIRST]
