"""A broker process for a test: its own directory, ports chosen by the system, ended by its own handle."""

import os
import pathlib
import queue
import subprocess
import threading

ROOT = pathlib.Path(__file__).parents[2]
START_SECONDS = 30


def binary():
    """The broker to test: VATN_BIN, or the binary of `cargo build`."""
    path = pathlib.Path(os.environ.get("VATN_BIN", ROOT / "target" / "debug" / "vatn"))
    assert path.exists(), f"{path} is not there: run `cargo build`, or set VATN_BIN"
    return str(path)


class Broker:
    """`vatn serve` on a directory. `router`, `publisher` and `http` are the endpoints that it printed.

    With `again`, a broker that has ended, it listens where that one did.
    """

    def __init__(self, directory, *flags, again=None):
        port, router, publisher = "0", "tcp://127.0.0.1:0", "tcp://127.0.0.1:0"
        if again:
            port, router, publisher = again.http.rpartition(":")[2], again.router, again.publisher
        ports = ["--port", port, "--router", router, "--publisher", publisher]
        self.log = open(pathlib.Path(directory).with_suffix(".log"), "a+")
        self.process = subprocess.Popen(
            [binary(), "serve", "--database", str(directory), *ports, *flags],
            stdout=subprocess.PIPE, stderr=self.log, text=True,
            env={name: value for name, value in os.environ.items() if not name.startswith("VATN_")},
        )
        self.endpoints = {}
        self._lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self._await_ready()

    def _read(self):
        for line in self.process.stdout:
            self._lines.put(line.split())
        self._lines.put(None)

    def _await_ready(self):
        while True:
            try:
                words = self._lines.get(timeout=START_SECONDS)
            except queue.Empty:
                words = None
            if words is None:
                self.process.kill()
                raise RuntimeError(f"the broker did not start; it said: {self.said()}")
            if words[:1] == ["listening"]:
                self.endpoints[words[1]] = words[2]
            if words[:1] == ["ready"]:
                break
        self.router = self.endpoints["router"]
        self.publisher = self.endpoints["publisher"]
        self.http = self.endpoints["http"]

    def said(self):
        """The broker's log."""
        self.log.seek(0)
        return self.log.read()

    def stop(self):
        """An orderly stop; returns the exit code."""
        self.process.terminate()
        return self._reap()

    def kill(self):
        """kill -9."""
        self.process.kill()
        return self._reap()

    def _reap(self):
        try:
            return self.process.wait(timeout=START_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.log.close()
            self.process.stdout.close()
