"""Measures, and says what came out. See `run`."""

import argparse
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import groups
import machine
import report
from loads import VALUE_BYTES, Loads
from servers import Redis
from table import Table

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
RELEASE = ROOT / "target" / "release"


def arguments():
    parser = argparse.ArgumentParser(description="vatn beside redis and FlatDB, measured in turn")
    parser.add_argument("--pairs", type=int, default=5, help="how often each row is measured, peer and vatn in turn")
    parser.add_argument("--seconds", type=float, default=4, help="for how long each time")
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true", help="a look: one pair, 1 second, 100,000 keys")
    parser.add_argument("--only", nargs="+", choices=groups.GROUPS, default=groups.GROUPS, metavar="GROUP")
    parser.add_argument("--results", type=pathlib.Path, help="where to write them")
    given = parser.parse_args()
    if given.quick:
        given.pairs, given.seconds, given.keys = 1, 1, 100_000
    if given.results is None:
        is_whole = not given.quick and given.only == groups.GROUPS
        given.results = HERE / "results" if is_whole else ROOT / "target" / "versus"
    return given


def main():
    given = arguments()
    # So that an interrupted run ends its servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    machine.need("redis-server", "redis-server")
    machine.need("redis-benchmark", "redis-tools")
    machine.need("wrk", "wrk")
    print("building vatn", flush=True)
    build = ["cargo", "build", "--quiet", "--release", "--bins", "--example", "versus_load", "--example", "echo_edge"]
    subprocess.run(build, cwd=ROOT, check=True)

    facts = {"machine": machine.described(ROOT), "pairs": given.pairs, "seconds": given.seconds, "keys": given.keys,
             "value_bytes": VALUE_BYTES, "redis_settings": {"always": Redis.SETTINGS, **Redis.PERSISTENCE}}
    print(f"{facts['machine']['processor']}, {facts['machine']['cores']} cores, {facts['machine']['memory_gib']} GiB; "
          f"redis {facts['machine']['redis']}, vatn {facts['machine']['vatn']}")
    if os.getloadavg()[0] > 0.5:
        print(f"the machine is not quiet: load average {os.getloadavg()[0]:.1f}")

    begun = time.monotonic()
    table = Table()
    loads = Loads(str(RELEASE / "vatn"), str(RELEASE / "examples" / "versus_load"), given.keys, given.seconds)
    (ROOT / "target").mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="versus-", dir=ROOT / "target"))
        bench = groups.Bench(table, loads, directory, str(RELEASE / "examples" / "echo_edge"))
        groups.measure(bench, given.only, given.pairs)
    facts["load_threads"] = {"redis-benchmark": loads.redis_threads, "vatn bench": loads.vatn_threads}
    facts["load_threads_tried"] = bench.thread_trials
    facts["minutes"] = round((time.monotonic() - begun) / 60, 1)
    facts["load_average_after"] = round(os.getloadavg()[0], 2)

    print(f"\n{given.pairs} pairs in {facts['minutes']} minutes; {given.keys:,} keys, values of {VALUE_BYTES} bytes; "
          f"a ratio above 1 means that vatn is better\n")
    report.show(table)
    print(f"\nload threads (the fastest of those tried): redis-benchmark {loads.redis_threads}, "
          f"vatn bench {loads.vatn_threads}; versus_load: one a connection")
    given.results.mkdir(parents=True, exist_ok=True)
    report.write_json(given.results / "versus.json", table, facts)
    report.plot(given.results / "versus.svg", table, facts)
    print(f"written: {given.results / 'versus.json'} and versus.svg")


if __name__ == "__main__":
    main()
