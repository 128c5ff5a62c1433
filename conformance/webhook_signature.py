"""Whether a request is signed as Standard Webhooks has it, told by whoever holds the secret."""

import base64
import hashlib
import hmac
import time

from conformance.check import holds, same
from conformance.fake_peer import Received

CLOCKS_SECONDS_MAX = 300  # that two clocks may be apart


def is_signed(post: Received, *secrets: str) -> bool:
    """Whether one of its signatures is made with each of these."""
    signed = b".".join(
        (post.headers["webhook-id"].encode(), post.headers["webhook-timestamp"].encode(), post.body)
    )
    given = {each.partition(",")[2] for each in post.headers["webhook-signature"].split()}
    return all(_signature(secret, signed) in given for secret in secrets)


def require_signed(post: Received, secret: str) -> None:
    """Raises where id, time or signature of a request would not do for its receiver."""
    holds(post.headers.get("webhook-id"), "webhook-id is there")
    sent = int(post.headers.get("webhook-timestamp", "0"))
    holds(abs(time.time() - sent) < CLOCKS_SECONDS_MAX, "webhook-timestamp is the present")
    holds(
        all(each.startswith("v1,") for each in post.headers["webhook-signature"].split()), "signatures are v1"
    )
    same(is_signed(post, secret), True, "the signature is right")


def _signature(secret: str, signed: bytes) -> str:
    encoded = secret.removeprefix("whsec_")
    key = base64.b64decode(encoded) if encoded != secret else secret.encode()
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
