"""How often tests of engines repeat a run with faults, and with which seeds."""

from __future__ import annotations

import os
from typing import Final

import pytest

#: In `make test-engines`; `make soak-engines` has more.
_RUNS: Final = 2
#: The whole of what takes long, as the engines' own tests.
IS_SOAK: Final = "COSCO_ENGINE_RUNS" in os.environ


def seeds() -> list[int]:
    """Return one seed for each run, which decides all that is drawn in it.

    COSCO_ENGINE_RUNS says how many runs there are, COSCO_ENGINE_SEED the first seed: with 1 and
    the seed of a run that failed, that run alone is repeated.
    """
    first = int(os.environ.get("COSCO_ENGINE_SEED", "0"))
    return list(range(first, first + int(os.environ.get("COSCO_ENGINE_RUNS", f"{_RUNS}"))))


#: A test with it is called with each `seed`, which is in its name.
each_seed = pytest.mark.parametrize("seed", seeds(), ids=lambda seed: f"seed-{seed}")
