"""The networks of these tests: hosts, wires between them, and a signed zone; and the stories that are told there."""

from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import pytest

from tests.real.ground import FarGround, far_ground
from tests.real.hosts import Host, internet
from tests.real.zones import SignedZone

DELAY_MS, JITTER_MS, LOSS_PERCENT = 10, 2, 1
STORIES = Path(__file__).parents[1] / "stories"


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


class Stories(pytest.Module):
    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        texts = {path: path.read_text() for path in sorted(STORIES.glob("test_*.py"))}
        told = [path for path, text in texts.items() if "ground" in text or "net: Federation" in text]
        assert told, "no story asks for a ground any more"
        for path in told:
            yield Story.from_parent(self, path=path, name=path.stem, nodeid=f"{self.nodeid}::{path.stem}")


class Story(pytest.Module):
    """Of a story's tests those that stand on a ground."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        return [test for test in super().collect() if "ground" in getattr(test, "fixturenames", ())]


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """What pytest asks of a file with tests: the one named after the stories holds them all."""
    if module_path.name != "test_stories.py":
        return None
    stories: Stories = Stories.from_parent(parent, path=module_path)
    return stories
