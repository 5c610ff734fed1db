"""Growth as a table, as JSON, and as small multiples."""

import json

import matplotlib
from growth import cost, size
from report import cores, figure

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import LogLocator, NullLocator  # noqa: E402

COLOURS = {"redis": "#c2553f", "vatn": "#2a7f62"}
DASHES = {16: "-", 100: "--"}
TITLES = {"keys": "keys", "connections": "connections", "value_bytes": "bytes of a value"}


def show(growth):
    """A block for each operation and axis; a step is the rate in relation to the base's."""
    head = ("", "redis", "vatn", "ratio", "redis' step", "vatn's step", "redis CPU us", "(load)", "vatn CPU us",
            "(load)", "cores: redis + load", "vatn + load")
    widths = [14, 12, 12, 8, 12, 12, 13, 8, 12, 8, 20, 12]
    print("".join(word.rjust(width) for word, width in zip(head, widths, strict=True)))
    for (operation, pipeline), (axis, points) in blocks(growth):
        print(f"{operation.upper()}, pipeline {pipeline}, by {TITLES[axis]}")
        base_peer, base_vatn, _ = growth.rows[operation, pipeline, growth.base].medians()
        for point in points:
            row = growth.rows[operation, pipeline, point]
            peer, vatn, ratio = row.medians()
            words = (place(axis, point), figure(peer, "/s"), figure(vatn, "/s"), f"{ratio:.2f}x",
                     f"{peer / base_peer:.2f}", f"{vatn / base_vatn:.2f}", f"{cost(row.peers):.2f}",
                     f"{cost(row.peers, 'cpu_us'):.2f}", f"{cost(row.vatns):.2f}", f"{cost(row.vatns, 'cpu_us'):.2f}",
                     cores(row.peers), cores(row.vatns))
            print("".join(word.rjust(width) for word, width in zip(words, widths, strict=True)))


def blocks(growth):
    operations = dict.fromkeys((operation, pipeline) for operation, pipeline, _ in growth.rows)
    return [(operation, axis) for operation in operations for axis in growth.axes.items()]


def place(axis, point):
    value = getattr(point, axis)
    if axis == "value_bytes":
        return size(value)
    for unit, name in ((1_000_000, "M"), (10_000, "0k")):
        if value >= unit and value % unit == 0:
            return f"{value // unit}{name}"
    return f"{value:,}"


def write_json(path, growth, facts):
    path.write_text(json.dumps({**facts, "rows": growth.described()}, indent=1) + "\n")


def plot(path, growth, facts):
    """Rates above, the cost of a command below; one column for each axis."""
    panels = [("get", "rate"), ("set", "rate"), ("get", "cost"), ("set", "cost")]
    figure_, axes = plt.subplots(4, 3, figsize=(10, 11), sharex="col", sharey="row")
    for line, (operation, what) in enumerate(panels):
        axes[line][0].set_yscale("log")
        for column, (axis, points) in enumerate(growth.axes.items()):
            panel(axes[line][column], growth, operation, what, axis, points)
        unit = "commands/s" if what == "rate" else "CPU us a command"
        axes[line][0].set_ylabel(f"{operation.upper()}\n{unit}", fontsize=9)
    for column, axis in enumerate(growth.axes):
        axes[0][column].set_title(TITLES[axis], fontsize=9)
    handles, labels = axes[0][0].get_legend_handles_labels()
    machine = facts["machine"]
    figure_.suptitle(f"How cost grows: vatn {machine['vatn']} and redis {machine['redis']}, "
                     f"medians of {facts['pairs']}\nbase: {growth.base.named()}; {facts['cores']}; SET at queued",
                     fontsize=9)
    figure_.legend(handles, labels, loc="lower center", ncols=4, fontsize=9, frameon=False)
    figure_.tight_layout(rect=(0, 0.03, 1, 1))
    figure_.savefig(path, metadata={"Date": None})


def panel(axes, growth, operation, what, axis, points):
    for name, colour in COLOURS.items():
        for pipeline, dashes in DASHES.items():
            rows = [growth.rows[operation, pipeline, point] for point in points]
            samples = [row.peers if name == "redis" else row.vatns for row in rows]
            medians = [row.medians()[0 if name == "redis" else 1] for row in rows]
            heights = medians if what == "rate" else [cost(each) for each in samples]
            axes.plot(range(len(points)), heights, dashes, color=colour, marker="o", markersize=3,
                      label=f"{name}, pipeline {pipeline}")
    axes.margins(y=0.1)
    axes.set_xticks(range(len(points)), [place(axis, point) for point in points], fontsize=8)
    axes.tick_params(axis="y", labelsize=8)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda height, _: f"{height / 1e6:g}M" if height >= 1e5 else f"{height:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(axis="y", linewidth=0.4, color="#cccccc")
    axes.spines[["top", "right"]].set_visible(False)
