"""The table for people, the JSON for programs, the plot for both."""

import json

import matplotlib
from table import median

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402


def show(table):
    head = ("", "peer", "peer's", "vatn's", "ratio", "of the pairs", "target", "", "cores: peer + load", "vatn + load")
    lines = [head, *(line(row) for row in table)]
    widths = [max(len(words[column]) for words in lines) for column in range(len(head))]
    for words in lines:
        aligned = [word.ljust(width) if column < 2 else word.rjust(width)
                   for column, (word, width) in enumerate(zip(words, widths, strict=True))]
        print("  ".join(aligned).rstrip())


def line(row):
    peer, vatn, ratio = row.medians()
    ratios = row.ratios()
    verdict = {None: "", True: "met", False: "MISSED"}[row.is_met()]
    return (row.name, row.peer, figure(peer, row.unit), figure(vatn, row.unit), f"{ratio:.2f}x",
            f"{min(ratios):.2f}-{max(ratios):.2f}", "" if row.target is None else f"{row.target:g}x", verdict,
            cores(row.peers), cores(row.vatns))


def figure(value, unit):
    digits = 0 if value >= 1000 else 1
    return f"{value:,.{digits}f}{unit if unit.startswith('/') else ' ' + unit}"


def cores(samples):
    server, load = median(samples, "server_cores"), median(samples, "load_cores")
    return "" if server is None else f"{server:.1f} + {load:.1f}"


def write_json(path, table, facts):
    path.write_text(json.dumps({**facts, "rows": [row.described() for row in table]}, indent=1) + "\n")


def plot(path, table, facts):
    """How many times better vatn is, on a logarithmic scale; the line in each bar's place is the target."""
    rows = list(table)[::-1]
    figure_, axes = plt.subplots(figsize=(9, 0.34 * len(rows) + 1.3))
    for place, row in enumerate(rows):
        ratios, middle = row.ratios(), row.medians()[2]
        colour = {None: "#8a8f98", True: "#2a7f62", False: "#c2553f"}[row.is_met()]
        axes.barh(place, middle - 1, left=1, height=0.6, color=colour)
        axes.plot([min(ratios), max(ratios)], [place, place], color="black", linewidth=1)
        if row.target is not None:
            axes.plot([row.target] * 2, [place - 0.42, place + 0.42], color="black", linewidth=2.2)
    axes.set_xscale("log")
    axes.margins(y=0.01)
    axes.axvline(1, color="black", linewidth=0.6)
    axes.set_yticks(range(len(rows)), [f"{row.name}  ({row.peer})" for row in rows], fontsize=8)
    ticks = [tick for tick in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
             if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{tick:g}x" for tick in ticks], fontsize=8)
    axes.minorticks_off()
    machine = facts["machine"]
    axes.set_title(f"vatn {machine['vatn']} beside redis {machine['redis']}: how many times better\n"
                   f"bar: median of {facts['pairs']} pairs, line: spread, mark: target; {facts['cores']}",
                   fontsize=8)
    figure_.tight_layout()
    figure_.savefig(path, metadata={"Date": None})
