import pathlib
import sys

import pytest

# The broker process is started as the pyzmq suite starts it.
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "pyzmq"))

LINES = pytest.StashKey()


@pytest.fixture
def say(request):
    """Says a line at the end of the run, whatever pytest captures."""
    return request.config.stash.setdefault(LINES, []).append


def pytest_terminal_summary(terminalreporter, config):
    for line in config.stash.get(LINES, []):
        terminalreporter.write_line(line)
