"""The machine: its properties, the CPU use of a process, and the tools that must be installed."""

import contextlib
import dataclasses
import os
import pathlib
import platform
import re
import shutil
import socket
import subprocess
import sys

TICKS = os.sysconf("SC_CLK_TCK")
CORES_HELP = "the servers on N cores, the load on others where there are N of them"


@dataclasses.dataclass(frozen=True)
class Cores:
    """Which cores the servers run on, and which the load; empty where that is left to the system."""

    server: tuple = ()
    load: tuple = ()

    @classmethod
    def of(cls, count):
        """`count` cores for the servers; the others for the load when they are as many, or else the same."""
        there = tuple(sorted(os.sched_getaffinity(0)))
        if count is None:
            return cls()
        if not 1 <= count <= len(there):
            sys.exit(f"--cores {count}: this machine has {len(there)} cores")
        server, others = there[:count], there[count:]
        return cls(server, others if len(others) >= count else server)

    def placements(self):
        """Where one connection's two ends may be, with words for it: where they share cores, the system has them on one
        core or on two as it happens, and the latency is one of two."""
        there = self.server or tuple(sorted(os.sched_getaffinity(0)))
        if self.load != self.server or len(there) == 1:
            return [("", self)]
        return [(" on one core", Cores(there[:1], there[:1])), (" on two cores", Cores(there[1:], there[:1]))]

    def load_count(self):
        return len(self.load) or os.cpu_count() or 1

    def suffix(self):
        """The properties that a file's name shows."""
        return f"-{len(self.server)}-cores" if self.server else ""

    def said(self):
        if not self.server:
            return f"servers and load share all {os.cpu_count()} cores"
        listed = ", ".join(map(str, self.server))
        if self.load == self.server:
            return f"servers and load share {len(self.server)} cores ({listed})"
        return f"servers on {len(self.server)} cores ({listed}), load on {len(self.load)} others"


def pinned(cores, command):
    """The command, held to those cores."""
    words = [str(word) for word in command]
    return ["taskset", "--cpu-list", ",".join(map(str, cores)), *words] if cores else words


def batch(cores, command):
    """A load generator's command, held to those cores, and as a batch process: an answer that wakes it does not take
    the core from the server in the middle of its turn. The clients that it stands for have cores of their own."""
    return ["chrt", "--batch", "0", *pinned(cores, command)]


@contextlib.contextmanager
def held(pid, cores):
    """Holds a process to those cores for a while, where any are named."""
    before = os.sched_getaffinity(pid)
    try:
        hold(pid, cores or before)
        yield
    finally:
        hold(pid, before)


def hold(pid, cores):
    for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
        # A thread may have ended meanwhile.
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), cores)


def cpu_seconds(pid):
    """User and system time that a process and its threads have used."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_bytes(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} has ended")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def output(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def described(root):
    processor = pathlib.Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)", processor, re.MULTILINE)
    memory = re.search(r"^MemTotal: *(\d+)", pathlib.Path("/proc/meminfo").read_text(), re.MULTILINE)
    git = ["git", "-C", str(root)]
    return {
        "processor": model[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory[1]) / 2**20, 1),
        "kernel": platform.release(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "redis": output("redis-server", "--version").split()[2].removeprefix("v="),
        "vatn": output(*git, "describe", "--always", "--dirty"),
        "rustc": output("rustc", "--version"),
    }


def need(command, package):
    """Sees to it that a command is there: from its Debian package when this is root."""
    if shutil.which(command):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.exit(f"{command} is missing: install it (Debian: apt-get install {package})")
    print(f"installing {package}", flush=True)
    # The package must not start a server of its own beside ours.
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    if subprocess.run(["apt-get", "install", "-qq", "-y", package], env=environment).returncode != 0:
        sys.exit(f"{package} could not be installed: run `apt-get update`, then `apt-get install {package}`")
