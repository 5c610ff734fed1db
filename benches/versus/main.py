"""Measures, and reports the results. See `run`."""

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
import growth_report
import machine
import report
from growth import Growth
from loads import VALUE_BYTES, Loads
from servers import Redis, Server
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
    parser.add_argument("--growth", action="store_true", help="how cost grows, instead of the table")
    parser.add_argument("--cores", type=int, metavar="N", help=machine.CORES_HELP)
    parser.add_argument("--results", type=pathlib.Path, help="where to write them")
    given = parser.parse_args()
    if given.growth and given.only != groups.GROUPS:
        parser.error("--only is about the table, and --growth is another one")
    if given.quick:
        given.pairs, given.seconds, given.keys = 1, 1, 100_000
    given.cores = machine.Cores.of(given.cores)
    given.stem = ("growth" if given.growth else "versus") + given.cores.suffix()
    if given.results is None:
        is_whole = not given.quick and given.only == groups.GROUPS
        given.results = HERE / "results" if is_whole else ROOT / "target" / "versus"
    return given


def prepare():
    """The required tools and files."""
    machine.need("redis-server", "redis-server")
    machine.need("redis-benchmark", "redis-tools")
    machine.need("wrk", "wrk")
    print("building vatn", flush=True)
    build = ["cargo", "build", "--quiet", "--release", "--bins", "--example", "versus_load", "--example", "echo_edge"]
    subprocess.run(build, cwd=ROOT, check=True)


def introduced(given):
    """The facts that stand beside every figure; said, too."""
    facts = {"machine": machine.described(ROOT), "pairs": given.pairs, "seconds": given.seconds, "keys": given.keys,
             "value_bytes": VALUE_BYTES, "cores": given.cores.said(),
             "redis_settings": {"always": Redis.SETTINGS, **Redis.PERSISTENCE}}
    print(f"{facts['machine']['processor']}, {facts['machine']['cores']} cores, {facts['machine']['memory_gib']} GiB; "
          f"redis {facts['machine']['redis']}, vatn {facts['machine']['vatn']}; {facts['cores']}")
    if os.getloadavg()[0] > 0.5:
        print(f"the machine is not quiet: load average {os.getloadavg()[0]:.1f}")
    return facts


def main():
    given = arguments()
    # So that an interrupted run ends its servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    prepare()
    facts = introduced(given)
    Server.cores = given.cores.server
    begun = time.monotonic()
    what, reporter = (Growth(given.keys), growth_report) if given.growth else (Table(), report)
    binaries = str(RELEASE / "vatn"), str(RELEASE / "examples" / "versus_load")
    loads = Loads(*binaries, given.keys, given.seconds, given.cores)
    (ROOT / "target").mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="versus-", dir=ROOT / "target"))
        bench = groups.Bench(what, loads, directory, str(RELEASE / "examples" / "echo_edge"))
        if given.growth:
            what.measure(bench, given.pairs)
        else:
            groups.measure(bench, given.only, given.pairs)
    if bench.thread_trials:
        facts["load_threads"] = {"redis-benchmark": bench.loads.redis_threads, "vatn bench": bench.loads.vatn_threads}
        facts["load_threads_tried"] = bench.thread_trials
    facts["minutes"] = round((time.monotonic() - begun) / 60, 1)
    facts["load_average_after"] = round(os.getloadavg()[0], 2)

    print(f"\n{given.pairs} pairs in {facts['minutes']} minutes; {given.keys:,} keys, values of {VALUE_BYTES} bytes, "
          f"where nothing else is said; {facts['cores']}; a ratio above 1 means that vatn is better\n")
    reporter.show(what)
    if bench.thread_trials:
        print(f"\nload threads (the fastest of those tried): redis-benchmark {bench.loads.redis_threads}, "
              f"vatn bench {bench.loads.vatn_threads}; versus_load: one a core")
    given.results.mkdir(parents=True, exist_ok=True)
    reporter.write_json(given.results / f"{given.stem}.json", what, facts)
    reporter.plot(given.results / f"{given.stem}.svg", what, facts)
    print(f"written: {given.results / given.stem}.json and .svg")


if __name__ == "__main__":
    main()
