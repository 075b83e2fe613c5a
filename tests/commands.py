"""Commands in a process of their own, as a user starts them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def command(module, *arguments):
    """What `python -m module arguments` did."""
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
        env=os.environ | {"SIAMJAX_TYPECHECK": "0"},  # as users start them, and sooner
    )  # fmt: skip


def together(module, processes, *arguments, each=None):
    """`module` started as so many processes of one run, with one simulated device each.

    `each` holds what only process 0, 1, ... is told.
    """
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    flags = os.environ.get("XLA_FLAGS", "").replace("_count=8", "_count=1")
    return [
        subprocess.Popen(
            [
                sys.executable, "-m", module, *map(str, arguments),
                f"--coordinator=localhost:{port}", f"--process={i}", f"--processes={processes}",
                *(each[i] if each else ()),
            ],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"XLA_FLAGS": flags, "SIAMJAX_TYPECHECK": "0"},
        )
        for i in range(processes)
    ]  # fmt: skip
