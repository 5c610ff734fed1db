"""The servers: started on loopback with stated settings, watched, and ended by their own process id."""

import pathlib
import re
import shutil
import socket
import subprocess
import threading
import time

import machine

READY_SECONDS = 120
SETTLE_SECONDS = 120
# A server is at rest when it uses less than this share of a core for this long.
REST_CORES, REST_SECONDS = 0.04, 0.4


class Server:
    """A process, and when it said that it was ready."""

    # Those of every server; none: all there are.
    cores = ()

    def __init__(self, command, ready, log):
        self.begun = time.monotonic()
        self.log = open(log, "ab")
        self.process = subprocess.Popen(machine.pinned(self.cores, command), stdout=subprocess.PIPE, stderr=self.log)
        self.pid = self.process.pid
        self.lines = []
        self.ready_seconds = None
        self._is_ready = threading.Event()
        threading.Thread(target=self._read, args=(ready,), daemon=True).start()
        if not self._is_ready.wait(READY_SECONDS) or self.ready_seconds is None:
            self.end()
            raise RuntimeError(f"{command[0]} did not start; it said: {' / '.join(self.lines[-5:])}, and see {log}")

    def _read(self, ready):
        with self.process.stdout as out:
            for line in out:
                line = line.decode(errors="replace").strip()
                self.lines.append(line)
                if self.ready_seconds is None and re.search(ready, line):
                    self.ready_seconds = time.monotonic() - self.begun
                    self._is_ready.set()
        self._is_ready.set()

    def cpu_seconds(self):
        return machine.cpu_seconds(self.pid)

    def resident_bytes(self):
        return machine.resident_bytes(self.pid)

    def settle(self):
        """Waits until it does nothing any more."""
        self.finish_writing()
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            used = self.cpu_seconds()
            time.sleep(REST_SECONDS)
            if self.cpu_seconds() - used < REST_CORES * REST_SECONDS:
                return
        raise RuntimeError(f"{self.name} did not come to rest in {SETTLE_SECONDS} seconds")

    def finish_writing(self):
        pass

    def end(self):
        """Orderly; by force when that takes too long."""
        self.process.terminate()
        try:
            self.process.wait(READY_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


class Redis(Server):
    """Debian's redis-server with its default settings but for those in SETTINGS and the requested persistence."""

    name = "redis"
    # A slow subscriber is not cut; no snapshots but those that a row asks for.
    SETTINGS = {"bind": "127.0.0.1", "save": "", "client-output-buffer-limit": "pubsub 0 0 0", "loglevel": "notice"}
    PERSISTENCE = {
        "none": {"appendonly": "no"},
        "everysec": {"appendonly": "yes", "appendfsync": "everysec"},
        "always": {"appendonly": "yes", "appendfsync": "always"},
    }

    def __init__(self, directory, persistence):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(exist_ok=True)
        self.port = machine.free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.socket = f"{directory}.sock"
        settings = {"port": self.port, "unixsocket": self.socket, "dir": directory, **self.SETTINGS, **self.PERSISTENCE[persistence]}
        flags = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
        super().__init__(["redis-server", *flags], "Ready to accept connections", f"{directory}.log")

    def ask(self, *words):
        """One command; the reply as text."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=SETTLE_SECONDS) as connection:
            connection.sendall((" ".join(words) + "\r\n").encode())
            reply = connection.recv(1 << 16)
        assert not reply.startswith(b"-"), reply
        return reply.decode()

    def finish_writing(self):
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            state = self.ask("INFO", "persistence")
            if "aof_rewrite_in_progress:0" in state and "rdb_bgsave_in_progress:0" in state:
                return
            time.sleep(0.05)


class Vatn(Server):
    """`vatn serve` with its default settings."""

    name = "vatn"

    def __init__(self, binary, directory, *flags):
        self.binary = binary
        command = [binary, "serve", "--database", directory, "--port", "0"]
        self.socket = f"{directory}.sock"
        command += ["--router", "tcp://127.0.0.1:0", "--router", f"ipc://{self.socket}"]
        command += ["--publisher", "tcp://127.0.0.1:0", *flags]
        super().__init__(command, r"^ready ", f"{directory}.log")
        endpoints = [line.split()[1:3] for line in self.lines if line.startswith("listening")]
        # Of several of a kind the first.
        endpoints = dict(reversed(endpoints))
        self.router, self.http = endpoints["router"], endpoints["http"]
        self.address = self.router.removeprefix("tcp://")
        self.publisher = endpoints["publisher"].removeprefix("tcp://")

    def finish_writing(self):
        machine.output(self.binary, "flush", "--connect", self.router)


class Echo(Server):
    """The listening edge without an engine: as an echo, or, with `answer`, with the reply of a GET."""

    name = "echo"

    def __init__(self, binary, log, *flags):
        super().__init__([binary, "tcp://127.0.0.1:0", *flags], r"^listening ", log)
        self.address = self.lines[0].split()[1].removeprefix("tcp://")


def remove(directory):
    shutil.rmtree(directory, ignore_errors=True)
