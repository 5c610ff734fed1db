import itertools

import pytest
import zmq
from broker import Broker


@pytest.fixture
def context():
    context = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def start(tmp_path):
    """Starts brokers: start(*flags) in a directory of its own, start(*flags, directory=…) in a given one."""
    brokers, numbers = [], itertools.count(1)

    def start_one(*flags, directory=None):
        brokers.append(Broker(directory or tmp_path / f"store{next(numbers)}", *flags))
        return brokers[-1]

    yield start_one
    for broker in brokers:
        if broker.process.returncode is None:
            broker.kill()


@pytest.fixture
def broker(start):
    return start()
