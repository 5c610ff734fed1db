"""The load generators, and the CPU time that they and the server used."""

import dataclasses
import json
import os
import re
import subprocess

import machine

VALUE_BYTES = 100
# Requests of the first measurement of redis-benchmark's rate.
TRIAL_REQUESTS = 100_000


@dataclasses.dataclass
class Measured:
    """A figure, and how many cores the server and the load generator were busy with meanwhile."""

    value: float
    server_cores: float = None
    load_cores: float = None
    detail: dict = dataclasses.field(default_factory=dict)


def run(server, command, cores=(), started=machine.batch, **environment):
    """Runs a load generator to its end: (its output, CPU seconds of the server, CPU seconds of its own)."""
    command = started(cores, command)
    before = server.cpu_seconds()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | environment)
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {process.returncode}: {out}")
    return out, server.cpu_seconds() - before, usage.ru_utime + usage.ru_stime


def measured(value, seconds, server_cpu, load_cpu, detail):
    """CPU seconds over the seconds under load are cores."""
    return Measured(value, round(server_cpu / seconds, 2), round(load_cpu / seconds, 2), detail)


def pace(out):
    """The rate up to the last progress line. With threads, redis-benchmark sees only every 250 ms that it is done, and
    counts that wait in: the rate that it states in the end would be too low."""
    paces = re.findall(r"rps=[\d.]+ \(overall: ([\d.]+)\)", out)
    # The first line comes before any rate is known.
    return float(paces[-1]) if len(paces) > 1 else None


class Loads:
    """Where the load generators are, and with how many threads each is fastest here."""

    def __init__(self, binary, versus_load, keys, seconds, cores, value_bytes=VALUE_BYTES):
        self.binary = binary
        self.versus_load = versus_load
        self.keys = keys
        self.seconds = seconds
        self.cores = cores
        self.value_bytes = value_bytes
        self.redis_threads = 2
        self.vatn_threads = cores.load_count()
        self._redis_rates = {}

    def resized(self, keys, value_bytes):
        """The same generators with other keys and values."""
        return Loads(self.binary, self.versus_load, keys, self.seconds, self.cores, value_bytes)

    def fill(self, server, own_keys=False, index=False):
        """All keys, in a scattered order; those that `vatn bench` asks for, unless `own_keys`."""
        flags = ["--index"] if index else []
        if server.name != "redis" and not own_keys:
            flags = ["--prefix", "bench:v:", "--digits", "10"]
        command = [self.versus_load, "fill", server.name, server.address, "--keys", self.keys, *flags]
        command += ["--value-size", self.value_bytes]
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
        server.settle()

    def redis_benchmark(self, server, operation, connections, pipeline, threads=None):
        """redis-benchmark counts requests, not seconds: how many it takes is tried out once for each kind."""
        kind = (operation, connections, pipeline)
        self._try_out(server, *kind)
        requests = max(10_000, int(self._redis_rates[kind] * self.seconds))
        return self._redis_run(server, *kind, requests, threads)

    def _try_out(self, server, operation, connections, pipeline):
        kind = (operation, connections, pipeline)
        if server.name == "redis" and kind not in self._redis_rates:
            # So short a run is timed well with one thread only; see `pace`.
            self._redis_rates[kind] = self._redis_run(server, *kind, TRIAL_REQUESTS, 1).value

    def _redis_run(self, server, operation, connections, pipeline, requests, threads):
        command = ["redis-benchmark", "-h", "127.0.0.1", "-p", server.port, "-c", connections, "-P", pipeline]
        command += ["-n", requests, "-r", self.keys, "-d", self.value_bytes, "-t", operation, "-q"]
        # It gives up when a thread has no connection.
        threads = min(threads or self.redis_threads, connections)
        if threads > 1:
            command += ["--threads", threads]
        out, *used = run(server, command, self.cores.load)
        stated = float(re.search(r"([\d.]+) requests per second", out)[1])
        rate = stated if threads == 1 else pace(out) or stated
        detail = {"rps": rate, "stated_rps": stated, "commands": requests}
        return measured(rate, requests / rate, *used, detail)

    def vatn_bench(self, server, operation, connections, pipeline, level="queued", threads=None):
        command = [self.binary, "bench", "--connect", server.router, "--json", "--no-load", "-m", operation]
        command += ["-c", connections, "-P", pipeline, "-k", self.keys, "-s", self.value_bytes, "-t", self.seconds]
        command += ["--durability", level, "--threads", threads or self.vatn_threads]
        out, *used = run(server, command, self.cores.load)
        figures = json.loads(out)
        assert figures["absent"] == 0, f"{figures['absent']} keys were not there"
        detail = {**figures["all"], "commands": figures["all"]["requests"]}
        return measured(detail["requests_per_second"], figures["seconds"], *used, detail)

    def closed(self, server, operation, connections, pipeline, level, address=None):
        """Requests that wait for those before them, from the generator that is the same for both."""
        return self.versus(server, "drive", "--operation", operation, "--connections", connections,
                           "--pipeline", pipeline, "--level", level, address=address)

    def own(self, server, operation, connections, pipeline):
        """The same from the generator that each side brings."""
        if server.name == "redis":
            return self.redis_benchmark(server, operation, connections, pipeline)
        return self.vatn_bench(server, operation, connections, pipeline)

    def latency(self, server, field, *flags, **how):
        """A latency under the same load. It must see an answer when it is there, so it is no batch process."""
        return self.versus(server, "drive", *flags, field=field, started=machine.pinned, **how)

    def versus(self, server, mode, *flags, field="per_second", bench_keys=True, seconds=None, cores=None, address=None,
               started=machine.batch):
        """The generator that is the same for both."""
        address = address or server.address
        command = [self.versus_load, mode, server.name, address, "--seconds", seconds or self.seconds, *flags]
        command += ["--value-size", self.value_bytes]
        if mode in ("drive", "range"):
            command += ["--keys", self.keys]
            if server.name != "redis" and bench_keys:
                command += ["--prefix", "bench:v:", "--digits", 10]
        out, *used = run(server, command, self.cores.load if cores is None else cores, started)
        figures = json.loads(out)
        assert figures.get("absent", 0) == 0, f"{figures['absent']} keys were not there"
        assert figures.get("refused", 0) == 0, f"{figures['refused']} writes were refused"
        detail = figures | {"commands": figures.get("requests")}
        return measured(figures[field], figures["seconds"], *used, detail)

    def wrk(self, server, script):
        seconds = max(1, round(self.seconds))
        command = ["wrk", "-t", 2, "-c", 32, "-d", f"{seconds}s", "-s", script, server.http]
        out, *used = run(server, command, self.cores.load, VATN_KEYS=str(self.keys))
        assert "Non-2xx" not in out, out
        return measured(float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]), seconds, *used, {})

    def choose_threads(self, redis, vatn):
        """With how many threads each generator is fastest; both loads are GETs, 16 in flight."""
        tried = {"redis-benchmark": {}, "vatn bench": {}}
        for threads in range(1, self.cores.load_count() + 1):
            tried["redis-benchmark"][threads] = self.redis_benchmark(redis, "get", 50, 16, threads).value
            tried["vatn bench"][threads] = self.vatn_bench(vatn, "get", 50, 16, threads=threads).value
        self.redis_threads = max(tried["redis-benchmark"], key=tried["redis-benchmark"].get)
        self.vatn_threads = max(tried["vatn bench"], key=tried["vatn bench"].get)
        return tried
