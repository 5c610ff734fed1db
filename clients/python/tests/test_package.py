"""Installing from a clone, as a program does that uses the client."""

import pathlib
import shutil
import subprocess
import sys

CLIENT = pathlib.Path(__file__).parents[1]


def run(*command, cwd):
    done = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_pip_installs_it_and_leaves_nothing_that_git_shows(tmp_path):
    clone, installed = tmp_path / "clone", tmp_path / "installed"
    files = run("git", "ls-files", "--cached", "--others", "--exclude-standard", ".", cwd=CLIENT).split()
    for name in files:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CLIENT / name, clone / name)
    run("git", "init", "--quiet", cwd=clone)
    run("git", "add", ".", cwd=clone)
    # The backend is the one that pip would fetch; so it needs no network.
    options = ["--quiet", "--no-index", "--no-build-isolation", "--no-deps", "--target", installed]
    run(sys.executable, "-m", "pip", "install", *options, clone, cwd=tmp_path)
    assert [line for line in run("git", "status", "--porcelain", cwd=clone).splitlines() if line[:2] != "A "] == []
    assert (installed / "vatn" / "py.typed").exists()
    code = "import vatn, pathlib; print(pathlib.Path(vatn.__file__).parent)"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(installed)}, capture_output=True, text=True
    )
    assert found.stdout.strip() == str(installed / "vatn"), found.stderr
