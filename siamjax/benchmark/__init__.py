"""How fast a recipe's step runs here, what it needs, and what it could reach."""

from __future__ import annotations

from siamjax.benchmark.machine import (
    device_peak,
    matmul_ceiling,
    process_peak,
    versions,
)
from siamjax.benchmark.speed import Measured, Speed, steady_state
from siamjax.benchmark.work import flop_per_step

__all__ = [
    "Measured",
    "Speed",
    "device_peak",
    "flop_per_step",
    "matmul_ceiling",
    "process_peak",
    "steady_state",
    "versions",
]
