"""What a result was measured on: figures without their machine say nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any, Final

import psutil

from cosco import __version__

_PACKAGES: Final = ("grpcio", "lz4", "numpy", "protobuf", "pyarrow", "xxhash")


def machine() -> dict[str, Any]:
    """Processor, cores this process may use, memory in bytes, system."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()}",
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def versions() -> dict[str, str]:
    """Python, and the packages on the data path."""
    found = {"python": platform.python_version(), "cosco": __version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
