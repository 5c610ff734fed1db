"""The results of `benches/sustained`, as a table and as lines over time."""

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import LogLocator, NullLocator  # noqa: E402

MIB = 2**20


def show(found):
    window = found["window_seconds"]
    print(f"\n{'medians of a second':<28}{f'first {window} s':>16}{f'last {window} s':>16}{'most':>16}")
    for name, field, unit, scale in (
        ("writes a second", "per_second", "/s", 1), ("p50", "p50_us", " ms", 1e3), ("p99", "p99_us", " ms", 1e3),
        ("resident memory", "resident_bytes", " MiB", MIB), ("store on disk", "store_bytes", " MiB", MIB),
        ("of it, the log", "log_bytes", " MiB", MIB), ("of it, the journal", "journal_bytes", " MiB", MIB),
    ):
        parts = [found[part][field] / scale for part in ("first", "last", "most")]
        digits = 0 if parts[0] >= 100 else 1
        print(f"{name:<28}" + "".join(f"{f'{part:,.{digits}f}{unit}':>16}" for part in parts))
    print(f"\nwhole run: {found['per_second']:,.0f} writes a second; p50 {found['p50_us'] / 1e3:.1f} ms, "
          f"p99 {found['p99_us'] / 1e3:.1f}, p99.9 {found['p99_9_us'] / 1e3:.1f}, max {found['max_us'] / 1e3:.1f}")
    most = found["most"]
    print(f"the queue was full in {found['queue_was_full_share']:.0%} of the seconds, {most['queue_items']:,} items "
          f"and {most['queue_bytes'] / MIB:,.0f} MiB at most; {found['queue_full']:,} writes got WRITE_QUEUE_FULL")
    print(f"{found['amplification']:.2f} bytes to the disk for a byte of key and value "
          f"({found['amplification_under_load']:.2f} while under load; the rest was written afterwards)")
    print(f"{found['cpu_us_a_write']:.2f} us of CPU a write, all of the broker's work; "
          f"{found['broker_cores']:.1f} cores busy under load")


def plot(path, facts):
    samples, before = facts["samples"], facts["before"]
    minutes = [each["at"] / 60 for each in samples]
    size, total, amplification = facts["key_bytes"] + facts["value_bytes"], 0, []
    for each in samples:
        total += (each["requests"] - each["refused"]) * size
        amplification.append((each["written_bytes"] - before["written_bytes"]) / max(1, total))

    def of(field, scale=1.0):
        return [each[field] / scale for each in samples]

    places = ("store", "tables", "log", "journal")
    panels = [
        ("writes a second, thousands", {"": of("per_second", 1e3)}, "linear"),
        ("latency in each second, ms", {"p50": of("p50_us", 1e3), "p99": of("p99_us", 1e3)}, "log"),
        ("resident memory, MiB", {"": of("resident_bytes", MIB)}, "linear"),
        ("store on disk, MiB", {name: of(f"{name}_bytes", MIB) for name in places}, "linear"),
        ("write queue, share of its bounds", {"": of("queue_share")}, "linear"),
        ("bytes to the disk for a byte written, so far", {"": amplification}, "linear"),
    ]
    figure, axes = plt.subplots(3, 2, figsize=(10, 8), sharex=True)
    for each, (title, lines, scale) in zip(axes.flat, panels, strict=True):
        for name, heights in lines.items():
            each.plot(minutes, heights, linewidth=0.9, label=name)
        each.set_yscale(scale)
        if scale == "linear":
            each.set_ylim(bottom=0)
        else:
            each.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            each.yaxis.set_major_formatter("{x:g}")
            each.yaxis.set_minor_locator(NullLocator())
        if len(lines) > 1:
            each.legend(fontsize=7, frameon=False, loc="upper left", ncols=len(lines))
            each.margins(y=0.2)
        each.set_title(title, fontsize=9)
        each.tick_params(labelsize=8)
        each.grid(linewidth=0.4, color="#cccccc")
        each.spines[["top", "right"]].set_visible(False)
    for each in axes[-1]:
        each.set_xlabel("minutes", fontsize=8)
    machine = facts["machine"]
    figure.suptitle(f"Sustained writes at {facts['durability']}: vatn {machine['vatn']}, "
                    f"{facts['connections']} connections, {facts['pipeline']} in flight, {facts['keys']:,} keys\n"
                    f"{facts['cores']}", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
