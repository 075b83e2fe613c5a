"""Measurements in processes of their own: what one of them leaves behind disturbs no other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence


class FailedError(Exception):
    """A measurement ended without figures; the text says why."""


def measured(line: Sequence[str], environment: Mapping[str, str] | None = None) -> dict:
    """The figures that a command prints as the last line, JSON.

    Raises:
        FailedError: if it fails, with its last words, or is killed for memory.
    """
    done = subprocess.run(
        list(line), capture_output=True, text=True, env=os.environ | dict(environment or {})
    )
    if done.returncode:
        words = [line for line in done.stderr.splitlines() if line.strip(" -")] or ["?"]
        words = [line for line in words if not line.startswith("For simplicity, JAX")] or words
        raise FailedError("killed" if done.returncode == -9 else words[-1])
    return json.loads(done.stdout.splitlines()[-1])


def ours(*options: str) -> list[str]:
    """The command line that measures this library's step."""
    return [sys.executable, "-m", "experiments.benchmark", "--json=-", "--ways=resident", *options]
