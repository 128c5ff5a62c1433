"""The networks of these tests: hosts, wires between them, and a signed zone."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.real.ground import FarGround, far_ground
from tests.real.hosts import Host, internet
from tests.real.zones import SignedZone

DELAY_MS, JITTER_MS, LOSS_PERCENT = 10, 2, 1


@pytest.fixture(scope="session")
def far_names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, SignedZone]]:
    """A host to be on, and the DNS of another, a wire away."""
    how = {"delay_ms": DELAY_MS, "jitter_ms": JITTER_MS, "loss_percent": LOSS_PERCENT}
    with internet("near", "far", **how) as net:
        near, far = net
        with SignedZone(far, tmp_path_factory.mktemp("dns")).served() as names:
            yield near, names
        net.wires.end()
        assert net.wires.carried > 0, "nothing crossed the wires"


@pytest.fixture
async def ground(
    far_names: tuple[Host, SignedZone], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[FarGround]:
    async with far_ground(*far_names, monkeypatch) as built:
        yield built
