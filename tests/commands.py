"""Commands in a process of their own, nearly as a user starts them."""

import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).resolve().parent.parent
AS_USERS = {"SIAMJAX_TYPECHECK": "0"}
# What every command imports takes two seconds: one process does, and each command is its fork.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["siamjax.run", "siamjax.inference"])


def command(module, *arguments):
    """What `python -m module arguments` did."""
    line = [module, *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        with patch.dict(os.environ, AS_USERS):  # the server starts with the first command
            process = SERVER.Process(target=_run, args=(line, dict(os.environ), out, err))
            process.start()
        process.join(120)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(line, 120, out.read_bytes(), err.read_bytes())
        return subprocess.CompletedProcess(line, process.exitcode, out.read_text(), err.read_text())


def _run(line, environment, out, err):
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv, sys.path[0:0] = line, [str(ROOT)]
    runpy.run_module(line[0], run_name="__main__", alter_sys=True)


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
            env=os.environ | AS_USERS | {"XLA_FLAGS": flags},
        )
        for i in range(processes)
    ]  # fmt: skip
