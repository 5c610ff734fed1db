import pathlib
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).parents[3]
sys.path.insert(0, str(REPOSITORY / "tests" / "pyzmq"))

from broker import Broker  # noqa: E402
from vatn import Client  # noqa: E402


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    broker = Broker(tmp_path_factory.mktemp("shared") / "store")
    yield broker
    broker.kill()


@pytest.fixture
def client(shared):
    """A client of a broker that the file's tests share, emptied."""
    # Writes of an earlier test may still be on their way to the disk.
    with Client(shared.router, timeout=60) as cleaner:
        while cleaner.delete_range(prefix=b"").next is not None:
            pass
    with Client(shared.router) as client:
        yield client


@pytest.fixture
def start(tmp_path):
    """Starts brokers of the test's own: start(*flags), all on one directory."""
    brokers = []

    def start_one(*flags):
        brokers.append(Broker(tmp_path / "store", *flags))
        return brokers[-1]

    yield start_one
    for broker in brokers:
        if broker.process.returncode is None:
            broker.kill()
