"""Section 9.1: whom a gateway hands messages to: nobody whose certificate is not good."""

import ssl
from typing import Any

from conformance.abroad import Abroad
from conformance.check import core, extended, same
from conformance.fake_peer import Authority
from conformance.target import Target


async def _distrusted(target: Target, abroad: Abroad, **spoiled: Any) -> None:
    alice = await target.agent()
    async with abroad.peer(**spoiled) as peer:
        message_id = await alice.sent(f"bob@{peer.domain}")
        await alice.delayed(message_id)
        same(peer.requests, [], "what the peer got")


@core
async def nobody_is_trusted_under_another_name(target: Target, abroad: Abroad) -> None:
    """Nothing is sent to a gateway whose certificate is for another name; the message waits."""
    await _distrusted(target, abroad, certificate_host=f"amtp.{abroad.domain()}")


@core
async def nobody_is_trusted_after_the_end(target: Target, abroad: Abroad) -> None:
    """Nothing is sent to a gateway whose certificate has ended; the message waits."""
    await _distrusted(target, abroad, expired=True)


@core
async def nobody_is_trusted_on_a_stranger_s_word(target: Target, abroad: Abroad) -> None:
    """Nothing is sent to a gateway whose certificate an unknown authority signed; the message waits."""
    await _distrusted(target, abroad, authority=Authority())


@extended
async def old_tls_is_not_spoken(target: Target, abroad: Abroad) -> None:
    """D: Nothing is sent to a gateway that speaks TLS 1.2 at most; the message waits."""
    await _distrusted(target, abroad, tls_version_max=ssl.TLSVersion.TLSv1_2)
