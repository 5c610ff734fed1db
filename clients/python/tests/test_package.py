"""Installing from a clone, as a program that uses the client does, with the packages of pip's index."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

CLIENT = pathlib.Path(__file__).parents[1]
REPOSITORY = CLIENT.parents[1]
PROGRAM = """
import sys, vatn
with vatn.Client(sys.argv[1]) as client:
    client.set("boat", {"oars": 2})
    print(client.get("boat"), vatn.__file__)
"""


def run(*command, cwd):
    # Only the installed package is to be found.
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def clone(tmp_path):
    """A clone of the repository in which git shows no change in the client."""
    clone = tmp_path / "a clone"
    # The files of a used checkout besides its sources.
    left_out = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist", ".*")
    shutil.copytree(CLIENT, clone / "clients" / "python", ignore=left_out)
    shutil.copy(REPOSITORY / ".gitignore", clone)
    run("git", "init", "--quiet", cwd=clone)
    run("git", "add", ".", cwd=clone)
    author = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    run("git", *author, "commit", "--quiet", "--message", "Add all", cwd=clone)
    return clone


@pytest.mark.parametrize("options", [[], ["--editable"]], ids=["as it is", "editable"])
def test_pip_installs_it_from_a_clone_and_leaves_no_file_there(shared, clone, tmp_path, options):
    program = tmp_path / "a program"
    run(sys.executable, "-m", "venv", program, cwd=tmp_path)
    python = program / "bin" / "python"
    folder = clone / "clients" / "python"
    run(python, "-m", "pip", "install", "--disable-pip-version-check", *options, folder, cwd=program)
    assert run("git", "status", "--porcelain", "--ignored", cwd=clone) == ""
    value, file = run(python, "-B", "-c", PROGRAM, shared.router, cwd=program).split("} ")
    assert value == "{'oars': 2"
    assert pathlib.Path(file.strip()).is_relative_to(folder if options else program)
    assert (pathlib.Path(file.strip()).parent / "py.typed").exists()
    assert run("git", "status", "--porcelain", "--ignored", cwd=clone) == ""
