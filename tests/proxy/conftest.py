import pathlib
import sys

# The broker process is started as the pyzmq suite starts it.
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "pyzmq"))
