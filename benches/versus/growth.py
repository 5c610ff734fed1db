"""How cost grows: GET and SET with more keys, more connections, larger values, each varied alone."""

import dataclasses
import time

from groups import PLAIN
from table import Row

OPERATIONS = [("get", 16), ("get", 100), ("set", 16), ("set", 100)]
# Large values have only as many keys as fill this many bytes, on both sides.
ALL_BYTES_MAX = 2 << 30


@dataclasses.dataclass(frozen=True, order=True)
class Point:
    """The keys of both servers, and the load on them."""

    keys: int
    value_bytes: int = 100
    connections: int = 50

    def held(self):
        return self.keys, self.value_bytes

    def named(self):
        plural = "s" if self.connections > 1 else ""
        return f"{self.keys:,} keys of {size(self.value_bytes)}, {self.connections:,} connection{plural}"


def size(count):
    return f"{count // 1024} KB" if count >= 1024 else f"{count} B"


def axes(keys):
    """The points of each axis, in order; the base is one of every axis."""
    def of_size(value_bytes):
        return Point(min(keys, max(1_000, round_down(ALL_BYTES_MAX // value_bytes))), value_bytes)

    return {
        "keys": [Point(keys // 100), Point(keys), Point(keys * 10)],
        "connections": [Point(keys, connections=count) for count in (1, 50, 1_000)],
        "value_bytes": [of_size(value_bytes) for value_bytes in (16, 100, 1_024, 65_536)],
    }


def round_down(count):
    """To one digit."""
    scale = 10 ** (len(str(count)) - 1)
    return count // scale * scale


class Growth:
    """The rows, by operation, messages under way, and point."""

    def __init__(self, keys):
        self.axes = axes(keys)
        self.base = Point(keys)
        points = dict.fromkeys(point for axis in self.axes.values() for point in axis)
        # The base first; then what is held by the same servers together.
        self.points = sorted(points, key=lambda point: (point.held() != self.base.held(), point))
        self.rows = {
            (operation, pipeline, point): Row(f"{operation.upper()}, pipeline {pipeline}, {point.named()}", PLAIN, None)
            for point in self.points for operation, pipeline in OPERATIONS
        }

    def measure(self, bench, pairs):
        for pair in range(1, pairs + 1):
            for held in dict.fromkeys(point.held() for point in self.points):
                begun = time.monotonic()
                print(f"pair {pair} of {pairs}, {held[0]:,} keys of {size(held[1])}:", flush=True)
                self.measure_held(bench, held)
                print(f"  ({time.monotonic() - begun:.0f} s)", flush=True)

    def measure_held(self, bench, held):
        bench.loads = bench.loads.resized(*held)
        with bench.both("none") as (redis, vatn):
            for point in self.points:
                for operation, pipeline in OPERATIONS if point.held() == held else ():
                    bench.turn(self.rows[operation, pipeline, point], redis, vatn, lambda server: costed(
                        bench.loads, server, operation, point.connections, pipeline))

    def described(self):
        return [{"operation": operation, "pipeline": pipeline, **dataclasses.asdict(point), **row.described(),
                 "peer_cost_us": cost(row.peers), "vatn_cost_us": cost(row.vatns)}
                for (operation, pipeline, point), row in self.rows.items()]


def costed(loads, server, operation, connections, pipeline):
    """A rate, and the CPU time that a command cost the server: under load, and in the work left for afterwards."""
    before = server.cpu_seconds()
    measured = loads.closed(server, operation, connections, pipeline, "queued")
    under_load = server.cpu_seconds() - before
    server.settle()
    whole = server.cpu_seconds() - before
    commands = measured.detail["commands"]
    measured.detail |= {"cpu_us": under_load / commands * 1e6, "cpu_us_with_the_rest": whole / commands * 1e6}
    return measured


def cost(samples, field="cpu_us_with_the_rest"):
    values = sorted(sample.detail[field] for sample in samples)
    return round(values[len(values) // 2], 3)
