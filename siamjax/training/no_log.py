"""The log of a process that leaves writing to another."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from siamjax.training.writer import MetricsLog


class NoLog(MetricsLog):
    """Takes rows and writes none: in a run of several processes only the first one writes."""

    def __init__(self):
        self.path = Path(os.devnull)

    def write(
        self, step: int, split: str, figures: Mapping[str, Any], *, epoch: float | None = None
    ) -> None:
        """Nothing."""

    def rows(self) -> list[dict[str, Any]]:
        """None."""
        return []

    def rewind(self, step: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
