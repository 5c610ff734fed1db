import pathlib
import sys

import pytest

# The broker process is started as the pyzmq suite starts it.
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "pyzmq"))

import chromium  # noqa: E402
from broker import Broker  # noqa: E402


@pytest.fixture(scope="session")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="session")
def broker(directory):
    broker = Broker(directory / "store")
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def browser(directory):
    if not chromium.path():
        pytest.skip("tests/browser did not run: there is no chromium (apt-get install chromium, or set CHROMIUM)")
    browser = chromium.Chromium(directory / "profile", "MAP evil.test 127.0.0.1")
    yield browser
    browser.end()
