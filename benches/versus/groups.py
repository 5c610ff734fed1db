"""The measurements, in groups that share servers. Each is called once a pair; within it the peer and vatn take turns
row by row, and each is at rest while the other is measured."""

import contextlib
import pathlib
import time

import machine
from loads import Measured
from servers import Echo, Redis, Vatn, remove
from table import FLATDB_GET, FLATDB_PUT

HERE = pathlib.Path(__file__).parent
# How long the runs at a held rate are at least.
PACED_SECONDS = 3
# From how many times as many keys new ones are drawn.
NEW_KEYS = 5
PLAIN, EVERYSEC, ALWAYS = "no persistence", "AOF everysec", "AOF always"


class Bench:
    """The servers and loads of a group."""

    def __init__(self, table, loads, directory, echo_edge):
        self.table = table
        self.loads = loads
        self.directory = pathlib.Path(directory)
        self.echo_edge = echo_edge
        self.thread_trials = None

    @contextlib.contextmanager
    def server(self, start, *arguments):
        """A server on its own directory, which is removed with it."""
        with self.directory_for(start) as directory, self.running(start, directory, *arguments) as server:
            yield server

    @contextlib.contextmanager
    def directory_for(self, start):
        directory = self.directory / start.__name__.lower()
        try:
            yield directory
        finally:
            remove(directory)

    @contextlib.contextmanager
    def running(self, start, directory, *arguments):
        leading = [self.loads.binary] if start is Vatn else []
        server = start(*leading, str(directory), *arguments)
        try:
            yield server
        finally:
            server.end()

    @contextlib.contextmanager
    def both(self, persistence, **fill):
        with self.server(Redis, persistence) as redis, self.server(Vatn) as vatn:
            for server in (redis, vatn):
                self.loads.fill(server, **fill if server is redis else {**fill, "index": False})
            yield redis, vatn

    def turn(self, row, redis, vatn, measure):
        """The peer, then vatn."""
        for server, samples in ((redis, row.peers), (vatn, row.vatns)):
            samples.append(measure(server))
            server.settle()
        tell(row)

    def rate(self, redis, vatn, name, peer, target, operation, pipeline, level, loads=None, by_path=False):
        loads = loads or self.loads
        row = self.table.row(name, peer, target)
        self.turn(row, redis, vatn, lambda server: loads.closed(
            server, operation, 50, pipeline, level, server.socket if by_path else None))

    def choose_threads(self, redis, vatn):
        if self.thread_trials is None:
            self.thread_trials = self.loads.choose_threads(redis, vatn)

    def plain(self):
        with self.both("none") as (redis, vatn):
            self.choose_threads(redis, vatn)
            for operation in ("get", "set"):
                for pipeline in (16, 100):
                    self.rate(redis, vatn, f"{operation.upper()}, pipeline {pipeline}{queued(operation)}", PLAIN, 2.0,
                              operation, pipeline, "queued")
            for operation in ("get", "set"):
                for name, by_path in (("1 in flight", False), ("1 in flight, Unix sockets", True)):
                    self.rate(redis, vatn, f"{operation.upper()}, {name}{queued(operation)}", PLAIN, 1.3,
                              operation, 1, "queued", by_path=by_path)
            for operation in ("get", "set"):
                for where, cores in self.loads.cores.placements():
                    row = self.table.row(f"{operation.upper()}, 1 connection{where}, p50{queued(operation)}", PLAIN, 1.0,
                                         "us", lower_is_better=True)
                    self.turn(row, redis, vatn,
                              lambda server, cores=cores: self.one_connection(server, operation, cores))
            for operation in ("get", "set"):
                row = self.table.row(f"{operation.upper()}, pipeline 16, each its own generator", PLAIN, None)
                self.turn(row, redis, vatn, lambda server: self.loads.own(server, operation, 50, 16))

    def one_connection(self, server, operation, cores):
        with machine.held(server.pid, cores.server):
            return self.loads.latency(server, "p50_us", "--operation", operation, "--connections", 1, "--pipeline", 1,
                                      cores=cores.load)

    def everysec(self):
        with self.both("everysec") as (redis, vatn):
            for pipeline in (16, 100):
                self.rate(redis, vatn, f"SET, pipeline {pipeline}, stored", EVERYSEC, 2.5, "set", pipeline, "stored")
            self.rate(redis, vatn, "SET, 1 in flight, stored", EVERYSEC, 1.3, "set", 1, "stored")
            peaks = {server.name: self.loads.closed(server, "set", 50, 16, "stored").value
                     for server in (redis, vatn)}
            for server in (redis, vatn):
                server.settle()
            least = {server: min(peaks.values()) for server in peaks}
            for name, rates, target in (("half of its own peak", peaks, 1.0), ("half of the lower peak", least, None)):
                row = self.table.row(f"SET, p99.9 at {name}, stored", EVERYSEC, target, "us", lower_is_better=True)
                self.turn(row, redis, vatn, lambda server, rates=rates: self.paced(server, rates[server.name] / 2))
            self.floor(vatn, peaks["vatn"] / 2)

    def paced(self, server, rate):
        """p99.9 at a rate. One stall of the machine is a thousandth of a short run, so this one is longer."""
        return self.loads.latency(server, "p99_9_us", "--operation", "set", "--level", "stored", "--rate", rate,
                                  seconds=max(self.loads.seconds, PACED_SECONDS))

    def floor(self, vatn, rate):
        """The same messages at the same rate to an edge without an engine: the share of the machine and the load."""
        with self.running(Echo, self.echo_edge, str(self.directory / "echo.log")) as echo:
            row = self.table.row("SET, p99.9 at half of vatn's peak", "echo of the edge", None, "us", lower_is_better=True)
            self.turn(row, echo, vatn, lambda server: self.paced(server, rate))

    def always(self):
        with self.both("always") as (redis, vatn):
            self.rate(redis, vatn, "SET, pipeline 16, synced", ALWAYS, 4.0, "set", 16, "synced")
            self.rate(redis, vatn, "SET, 1 in flight, synced", ALWAYS, 1.3, "set", 1, "synced")

    def new(self):
        """This many random ones, to empty servers: most are new, and come in no order."""
        loads = self.loads.resized(NEW_KEYS * self.loads.keys, self.loads.value_bytes)
        for pipeline in (16, 100):
            with self.server(Redis, "none") as redis, self.server(Vatn) as vatn:
                self.rate(redis, vatn, f"SET of new keys, pipeline {pipeline}, queued", PLAIN, None,
                          "set", pipeline, "queued", loads)

    def memory(self):
        """Resident memory of the keys, and the time from start to ready with them."""
        filled, loaded, ready = {}, {}, {}
        for start, arguments in ((Redis, ["none"]), (Vatn, [])):
            with self.directory_for(start) as directory:
                with self.running(start, directory, *arguments) as server:
                    server.settle()
                    empty = server.resident_bytes()
                    self.loads.fill(server, own_keys=True)
                    filled[server.name] = server.resident_bytes() - empty
                    if start is Redis:
                        assert server.ask("SAVE").startswith("+OK")
                with self.running(start, directory, *arguments) as server:
                    ready[server.name] = server.ready_seconds
                    server.settle()
                    loaded[server.name] = server.resident_bytes() - empty
        keys = f"{self.loads.keys:,} keys of 16 bytes"
        # 0.9 of the memory is 1.11 times better.
        for name, target, unit, values, scale in (
            (f"memory, {keys}", 1.11, "MiB", filled, 2**20),
            ("memory, the same after a restart", None, "MiB", loaded, 2**20),
            ("start to ready with them", 1.0, "ms", ready, 1e-3),
        ):
            row = self.table.row(name, "RDB" if unit == "ms" else PLAIN, target, unit, lower_is_better=True)
            row.peers.append(Measured(values["redis"] / scale))
            row.vatns.append(Measured(values["vatn"] / scale))
            tell(row)

    def pub(self):
        with self.server(Redis, "none") as redis, self.server(Vatn) as vatn:
            for subscribers in (1, 10, 100):
                plural = "s" if subscribers > 1 else ""
                row = self.table.row(f"PUB, {subscribers} subscriber{plural}, delivered", "pub/sub", 2.0)
                self.turn(row, redis, vatn, lambda server: self.loads.versus(
                    server, "fan", "--subscribers", subscribers,
                    *(["--publisher", server.publisher, "--level", "memory"] if server is vatn else [])))

    def http(self):
        with self.server(Vatn) as vatn:
            self.loads.fill(vatn)
            for name, stated, target, script in (("HTTP /get", FLATDB_GET, 100, "get.lua"),
                                                 ("HTTP /put, synced", FLATDB_PUT, 50, "put.lua")):
                row = self.table.row(name, "FlatDB, stated", target, stated_peer=stated)
                row.vatns.append(self.loads.wrk(vatn, HERE / script))
                vatn.settle()
                tell(row)

    def echo(self):
        with self.server(Vatn) as vatn:
            self.loads.fill(vatn)
            for name, target, flags in (("GET, pipeline 100, of the bare echo", 0.7, []),
                                        ("the same, of an echo that decodes and answers", None, ["answer"])):
                with self.running(Echo, self.echo_edge, str(self.directory / "echo.log"), *flags) as echo:
                    row = self.table.row(name, "echo of the edge", target)
                    self.turn(row, echo, vatn, lambda server: self.loads.closed(server, "get", 50, 100, "queued"))

    def range(self):
        with self.both("none", own_keys=True, index=True) as (redis, vatn):
            row = self.table.row("range of 1,000, 8 connections", "ZRANGE BYLEX + MGET", 2.0)
            self.turn(row, redis, vatn, lambda server: self.loads.versus(server, "range", bench_keys=False))


def tell(row):
    """The figures of the last pair."""
    peer = row.peers[-1].value if row.peers else row.stated_peer
    print(f"  {row.name:<44} {peer:>12,.1f} {row.vatns[-1].value:>12,.1f} {row.ratios()[-1]:>8.2f}x", flush=True)


def queued(operation):
    return ", queued" if operation == "set" else ""


GROUPS = ["plain", "everysec", "always", "new", "memory", "pub", "http", "echo", "range"]


def measure(bench, names, pairs):
    for pair in range(1, pairs + 1):
        for name in names:
            begun = time.monotonic()
            print(f"pair {pair} of {pairs}, {name}:", flush=True)
            getattr(bench, name)()
            print(f"  ({time.monotonic() - begun:.0f} s)", flush=True)
