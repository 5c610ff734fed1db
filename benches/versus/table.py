"""The comparison: the rows, and how the figures of a row are combined."""

import dataclasses
import statistics


@dataclasses.dataclass
class Row:
    """One line of the table. A ratio says how many times better vatn is: above 1 in every row."""

    name: str
    peer: str
    target: float | None
    unit: str = "/s"
    lower_is_better: bool = False
    stated_peer: float | None = None
    peers: list = dataclasses.field(default_factory=list)
    vatns: list = dataclasses.field(default_factory=list)

    def ratios(self):
        peers = [measured.value for measured in self.peers] or [self.stated_peer] * len(self.vatns)
        pairs = zip((measured.value for measured in self.vatns), peers, strict=True)
        return [peer / vatn if self.lower_is_better else vatn / peer for vatn, peer in pairs]

    def medians(self):
        """(the peer's, vatn's, the ratio's)."""
        peer = median(self.peers, "value") if self.peers else self.stated_peer
        return peer, median(self.vatns, "value"), statistics.median(self.ratios())

    def is_met(self):
        return None if self.target is None else statistics.median(self.ratios()) >= self.target

    def described(self):
        peer, vatn, ratio = self.medians()
        return {
            "name": self.name, "peer": self.peer, "unit": self.unit, "lower_is_better": self.lower_is_better,
            "target": self.target, "met": self.is_met(), "peer_median": peer, "vatn_median": vatn,
            "ratio_median": round(ratio, 3), "ratios": [round(ratio, 3) for ratio in self.ratios()],
            "peer_samples": [dataclasses.asdict(measured) for measured in self.peers],
            "vatn_samples": [dataclasses.asdict(measured) for measured in self.vatns],
        }


def median(samples, field):
    values = [getattr(sample, field) for sample in samples if getattr(sample, field) is not None]
    return statistics.median(values) if values else None


class Table:
    """The rows in the order in which they came up."""

    def __init__(self):
        self.rows = {}

    def row(self, name, *arguments, **options):
        return self.rows.setdefault(name, Row(name, *arguments, **options))

    def __iter__(self):
        return iter(self.rows.values())


# The rates that FLATDB.md states for its server on such a machine: wrk with 32 connections.
FLATDB_GET, FLATDB_PUT = 487, 333
