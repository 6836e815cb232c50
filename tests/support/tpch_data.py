"""The tables of TPC-H as files of Parquet."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path


def make_tables(folder: Path, scale: float) -> Path:
    """Generate all tables, each a file `<table>.parquet` of row groups that can be read apart.

    The same scale gives the same rows each time.

    Returns: the folder.
    """
    tool = Path(sys.executable).with_name("tpchgen-cli")
    found = str(tool) if tool.exists() else shutil.which("tpchgen-cli")
    assert found, "tpchgen-cli is not installed: run make test-spark"
    groups = "7MiB" if scale >= 0.1 else "512KiB"
    subprocess.run(
        [found, "parquet", "-s", f"{scale:g}", "-o", str(folder), "--row-group-bytes", groups],
        check=True,
        capture_output=True,
    )
    return folder
