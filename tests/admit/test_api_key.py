"""Keys: what is handed out is what is recognised, and nothing that is kept gives it away."""

import pytest

from gateway.admit.api_key import digest_of, mint_key, parse_key, same_digest


def test_a_minted_key_is_recognised_with_its_id_and_digest() -> None:
    key = mint_key()

    assert parse_key(key.text) == key
    assert key.text.startswith(f"amtp_{key.id}_")
    assert key.digest == digest_of(key.text)


def test_two_minted_keys_share_nothing() -> None:
    one, other = mint_key(), mint_key()

    assert one.id != other.id
    assert one.text.rpartition("_")[2] != other.text.rpartition("_")[2]


def test_a_secret_has_at_least_256_bits() -> None:
    secret = mint_key().text.rpartition("_")[2]

    assert 62 ** len(secret) > 2**256


def test_a_key_does_not_show_itself_when_printed() -> None:
    key = mint_key()

    assert key.text not in repr(key)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: "",
        lambda text: text[:-1],
        lambda text: text + "0",
        lambda text: text.upper(),
        lambda text: text.replace("amtp_", "amqp_"),
        lambda text: text + "\n",
        lambda text: text[:-1] + "\x00",
        lambda text: text[:-1] + "é",
        lambda text: " " + text,
    ],
)
def test_what_was_never_handed_out_is_no_key(spoil: object) -> None:
    assert parse_key(spoil(mint_key().text)) is None  # type: ignore[operator]  # a table of functions


def test_digests_are_compared_whole() -> None:
    digest = digest_of("secret")

    assert same_digest(digest, digest_of("secret"))
    assert not same_digest(digest, digest[:-1] + b"\x00")
    assert not same_digest(digest, digest[:-1])
