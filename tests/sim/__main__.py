"""`python -m tests.sim`: run seeds, replay one, or measure how soon breaks are caught."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from itertools import islice

from . import sweep
from .scenario import seeds_of_groups, seeds_of_tiers


def main() -> int:
    """Returns the exit status: 1 if a seed failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("seeds", nargs="*", type=int, help="seeds to run, one after the other")
    parser.add_argument("--trace", action="store_true", help="print all that happens")
    parser.add_argument("--first", type=int, default=0, help="the first of a row of seeds")
    parser.add_argument("--count", type=int, default=0, help="run so many seeds from --first on")
    parser.add_argument("--groups", action="store_true", help="only those that are of groups")
    parser.add_argument("--tiers", action="store_true", help="only those with flash")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--coverage", action="store_true", help="print what happened in them")
    parser.add_argument("--break", dest="broken", metavar="NAME", help="break the code like this")
    parser.add_argument("--breaks", action="store_true", help="measure all breaks")
    parser.add_argument("--limit", type=int, default=2000, help="seeds to try with a break")
    arguments = parser.parse_args()
    if arguments.breaks:
        return sweep.measure_breaks(arguments.limit, arguments.workers, arguments.broken)
    if arguments.count:
        seeds: Iterable[int] = range(arguments.first, arguments.first + arguments.count)
        if arguments.groups:
            seeds = islice(seeds_of_groups(arguments.first), arguments.count)
        if arguments.tiers:
            seeds = islice(seeds_of_tiers(arguments.first), arguments.count)
        return sweep.run_many(
            seeds, arguments.workers, arguments.broken, coverage=arguments.coverage
        )
    return sweep.run_here(arguments.seeds, trace=arguments.trace, broken=arguments.broken)


if __name__ == "__main__":
    sys.exit(main())
