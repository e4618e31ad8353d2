"""The machine that the figures are of."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from solders.keypair import Keypair

import keeper


def describe() -> dict[str, Any]:
    """What it is, and the three costs that nothing can get below: a signature, an fsync, and the load of others."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "keeper": keeper.__version__,
        "commit": _commit(),
        "signature_us": round(_signature_us(), 1),
        "fsync_us": round(_fsync_us()),
        "load_before": os.getloadavg()[0],
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _signature_us() -> float:
    key, message = Keypair(), os.urandom(350)
    began = time.perf_counter()
    for _ in range(500):
        key.sign_message(message)
    return 1e6 * (time.perf_counter() - began) / 500


def _fsync_us() -> float:
    """The median of appending 8 KB, about what a commit writes, and having it on the disk."""
    samples = []
    with tempfile.NamedTemporaryFile(prefix="keeper-bench-") as file:
        for _ in range(200):
            file.write(b"x" * 8_192)
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            samples.append(1e6 * (time.perf_counter() - began))
    return statistics.median(samples)
