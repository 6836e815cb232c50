"""How often tests of the plugin for Spark repeat a run with faults, and with which seeds."""

from __future__ import annotations

import os
from typing import Final

import pytest

#: All of it, as `make soak-spark` wants it.
IS_SOAK: Final = "COSCO_SPARK_RUNS" in os.environ


def seeds() -> list[int]:
    """Return one seed for each run, which decides all that is drawn in it.

    COSCO_SPARK_RUNS says how many runs there are, COSCO_SPARK_SEED the first seed.
    """
    first = int(os.environ.get("COSCO_SPARK_SEED", "0"))
    return list(range(first, first + int(os.environ.get("COSCO_SPARK_RUNS", "1"))))


#: A test with it is called with each `seed`, which is in its name.
each_seed = pytest.mark.parametrize("seed", seeds(), ids=lambda seed: f"seed-{seed}")
