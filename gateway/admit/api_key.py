"""API keys: `amtp_<id>_<secret>`. The id finds the row; of the secret, 256 random bits, only a digest is stored.

A plain SHA-256 is enough for a random secret: 256 bits can't be guessed, however fast the hash.
"""

import hmac
import re
import secrets
import string
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256

ID_CHARACTERS, ID_LENGTH = string.digits + string.ascii_lowercase, 12
SECRET_CHARACTERS, SECRET_LENGTH = string.digits + string.ascii_letters, 43  # 62 ** 43 > 2 ** 256
PATTERN = re.compile(rf"amtp_([0-9a-z]{{{ID_LENGTH}}})_[0-9A-Za-z]{{{SECRET_LENGTH}}}")

LENGTH = len("amtp__") + ID_LENGTH + SECRET_LENGTH
KEYS_REMEMBERED = 4096  # the same agents come again and again


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it was handed to its holder; only `id` and `digest` are stored."""

    id: str
    digest: bytes
    text: str = field(repr=False, compare=False)


def mint_key() -> ApiKey:
    """Returns a new key from the system's randomness."""
    key = parse_key(f"amtp_{_random(ID_CHARACTERS, ID_LENGTH)}_{_random(SECRET_CHARACTERS, SECRET_LENGTH)}")
    assert key is not None
    return key


def parse_key(text: str) -> ApiKey | None:
    """Returns the key a caller presents; None for text that no gateway can have issued."""
    return _parsed(text) if len(text) == LENGTH else None  # a stranger's kilobytes are not remembered


@lru_cache(KEYS_REMEMBERED)
def _parsed(text: str) -> ApiKey | None:
    match = PATTERN.fullmatch(text)
    return ApiKey(match[1], digest_of(text), text) if match else None


def digest_of(secret: str) -> bytes:
    """Returns the digest that is stored of a secret."""
    return sha256(secret.encode()).digest()


def same_digest(one: bytes, other: bytes) -> bool:
    """Compares two digests in constant time."""
    return hmac.compare_digest(one, other)


def _random(characters: str, length: int) -> str:
    return "".join(secrets.choice(characters) for _ in range(length))
