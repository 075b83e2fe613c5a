"""One recipe over batch sizes, devices and number formats, a process for each case."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from experiments.peers.children import FailedError, measured, ours


@dataclass
class Cases:
    """What to measure: every combination.

    Attributes:
        batch_sizes: pairs of a step, over all devices.
        doubling: go on from the last of them, doubling, until it does not fit.
        devices: numbers of devices.
        dtypes: "float32", "bfloat16".
    """

    batch_sizes: list[int]
    doubling: bool
    devices: list[int]
    dtypes: list[str]

    def sizes(self) -> Iterator[int]:
        """Batch sizes, without end if doubling."""
        yield from self.batch_sizes
        if self.doubling:
            yield from (self.batch_sizes[-1] << i for i in count(1))


def sweep(cases: Cases, recipe: list[str], timing: list[str]) -> list[dict]:
    """Figures of every case that ran, printed as they come.

    Args:
        cases: what to measure.
        recipe: the flags that name it, and its changes.
        timing: the flags of windows and their length.
    """
    rows: list[dict] = []
    for dtype in cases.dtypes:
        for devices in cases.devices:
            for size in cases.sizes():
                line = ours(*recipe, *timing, f"--config.batch_size={size}")
                line += [f"--config.train.devices={devices}", f"--config.dtype={dtype}"]
                try:
                    row = measured(line, simulated(max(cases.devices)))
                except FailedError as error:
                    print(f"batch {size}, {devices} device(s), {dtype}: {error}", flush=True)
                    if cases.doubling:
                        break
                    continue
                row["scaling_efficiency"] = efficiency(row, rows)
                rows.append(row)
                show(row)
    return rows


def simulated(devices: int) -> dict[str, str]:
    """An environment in which a machine without accelerators has so many devices."""
    if devices == 1:
        return {}
    name = "--xla_force_host_platform_device_count"
    others = [f for f in os.environ.get("XLA_FLAGS", "").split() if not f.startswith(name)]
    return {"XLA_FLAGS": " ".join([*others, f"{name}={devices}"])}


def efficiency(row: dict, before: list[dict]) -> float | None:
    """Speed over that of one device times the devices, at the same batch; None if not measured."""
    for other in [*before, row]:
        alike = all(other[key] == row[key] for key in ("batch_size", "dtype"))
        if alike and other["devices"] == 1:
            one = statistics.median(other["pairs_per_second"])
            return statistics.median(row["pairs_per_second"]) / one / row["devices"]
    return None


def show(row: dict) -> None:
    """A case in a line."""
    speeds = row["pairs_per_second"]
    scaling = row["scaling_efficiency"] if row["devices"] > 1 else None
    told = "" if scaling is None else f", scaling {scaling:.0%}"
    if scaling is not None and row["platform"] == "cpu":
        told += " (simulated devices, which share the cores)"
    memory = row["peak_mb"] if row["device_peak_mb"] is None else row["device_peak_mb"]
    print(
        f"batch {row['batch_size']:>6}, {row['devices']} device(s), {row['dtype']}:"
        f" {statistics.median(speeds):>12,.1f} pairs/s [{min(speeds):,.1f} to {max(speeds):,.1f}],"
        f" {row['flop_per_second'] / row['ceiling_flop_per_second']:.0%} of the ceiling, first step"
        f" {row['first_step_s']:.1f} s, {memory:,.0f} MB{told}",
        flush=True,
    )
