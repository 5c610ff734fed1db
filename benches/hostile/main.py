"""Runs the cases and prints the table. See `run`."""

import argparse
import json
import os
import pathlib
import re
import resource
import subprocess
import sys
import tempfile
import time
from types import SimpleNamespace

import attacks

HERE = pathlib.Path(__file__).parent


class Broker:
    def __init__(self, folder, address_space=None):
        def limit():
            if address_space:
                resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))

        ports = ["--port", "0", "--router", "tcp://127.0.0.1:0", "--publisher", "tcp://127.0.0.1:0"]
        command = [os.environ["VATN_BIN"], "serve", "--database", folder, *ports]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, preexec_fn=limit
        )
        self.at = SimpleNamespace()
        for line in self.process.stdout:
            words = line.split()
            if words[:1] == ["listening"]:
                setattr(self.at, words[1], words[2])
            if words[:1] == ["ready"]:
                break

    def memory(self, name):
        """VmHWM is its peak memory, VmRSS the current one; in MiB, or None when it has ended."""
        try:
            status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
            return int(re.search(rf"{name}:\s+(\d+)", status)[1]) / 1024
        except (OSError, TypeError):
            return None

    def end(self):
        self.process.kill()
        self.process.wait()


class Honest:
    def __init__(self, endpoint, reconnects=False):
        command = [sys.executable, HERE / "honest.py", endpoint, *(["reconnect"] if reconnects else [])]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.worst()

    def worst(self):
        """The worst waits since the last call, in ms: of reads, and of `synced` sets."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return [float(wait) for wait in self.process.stdout.readline().split()]

    def end(self):
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()


def run(name, given):
    _, reconnects, address_space = attacks.CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        broker = Broker(f"{folder}/attacked", address_space)
        idle = Broker(f"{folder}/idle")
        honest, jitter = Honest(broker.at.router, reconnects), Honest(idle.at.router, reconnects)
        try:
            before = broker.memory("VmRSS")
            command = [sys.executable, HERE / "main.py", "--attack", name, "--scale", str(given.scale)]
            attack = subprocess.Popen([*command, "--value", str(given.value), "--at", json.dumps(vars(broker.at))])
            try:
                attack.wait(timeout=120)
            except subprocess.TimeoutExpired:
                attack.kill()
                attack.wait()
            # Waits in progress when the attack ends belong to it.
            time.sleep(3)
            waits, peak = [*honest.worst(), *jitter.worst()], broker.memory("VmHWM")
            time.sleep(given.rest)
            return waits, peak, before, broker.memory("VmRSS"), max(honest.worst())
        finally:
            for one in (honest, jitter, broker, idle):
                one.end()


def limits():
    """The sum of the default limits on memory besides that of the data, in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        broker = Broker(folder)
        command = [os.environ["VATN_BIN"], "stats", "--json", "--connect", broker.at.router]
        stats = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        broker.end()
    parts = {"write queue": stats["write_queue"]["max_bytes"]}
    parts.update({name: part["max_bytes"] for name, part in stats["network_memory"].items()})
    return sum(parts.values()) / (1 << 20), ", ".join(parts)


def main():
    parser = argparse.ArgumentParser(description="hostile cases, and what an honest client waits meanwhile")
    parser.add_argument("--only", nargs="+", metavar="CASE", help="cases whose name begins so, such as A2")
    parser.add_argument("--value", type=int, default=(16 << 20) - 1024, help="bytes of a large value")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--scale", type=float, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--attack", help=argparse.SUPPRESS)
    parser.add_argument("--at", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if given.attack:
        attacks.CASES[given.attack][0](SimpleNamespace(**given.at), given.value, given.scale)
        return
    given.scale, given.rest = (0.1, 1) if given.quick else (1, 5)
    total, names = limits()
    print(f"limits together: {total:.0f} MiB ({names})\n")
    print("| case | worst read, set, ms | with an idle broker | peak RSS, MiB | RSS before, after | wait after, ms |")
    print("|---|---|---|---|---|---|")
    shown = lambda number: "ended" if number is None else f"{number:,.0f}"
    for name in attacks.CASES:
        if given.only and not name.startswith(tuple(given.only)):
            continue
        (read, write, idle_read, idle_write), peak, before, after, then = run(name, given)
        memory = f"{shown(peak)} | {shown(before)}, {shown(after)}"
        waits = f"{read:,.1f}, {write:,.1f} | {idle_read:,.1f}, {idle_write:,.1f}"
        print(f"| {name} | {waits} | {memory} | {then:,.1f} |", flush=True)


if __name__ == "__main__":
    main()
