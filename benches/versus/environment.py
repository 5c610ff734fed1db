"""The Python for plots: a venv in target/ with the packages of requirements.txt."""

import os
import pathlib
import subprocess
import sys
import venv

HERE = pathlib.Path(__file__).resolve().parent
HOME = HERE.parents[1] / "target" / "versus-venv"


def enter(script):
    """Goes on as `script` in the venv, which is made when it is missing; returns when this is it."""
    if pathlib.Path(sys.prefix).resolve() == HOME:
        return
    wanted, installed = (HERE / "requirements.txt").read_text(), HOME / "installed"
    if not installed.exists() or installed.read_text() != wanted:
        venv.create(HOME, with_pip=True, clear=True)
        pip = [HOME / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", HERE / "requirements.txt"], check=True)
        installed.write_text(wanted)
    python = HOME / "bin" / "python"
    os.execv(python, [python, script, *sys.argv[1:]])
