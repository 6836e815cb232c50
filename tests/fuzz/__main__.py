"""`python -m tests.fuzz`: strange calls of all methods of both services, beside an honest job."""

from __future__ import annotations

import argparse
import sys

from .run import KEPT, Run, tell


def main() -> int:
    """Returns the exit status: 1 if something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="to begin new calls for")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="index of the first call")
    parser.add_argument("--count", type=int, default=0, help="so many calls and no more")
    parser.add_argument("--table", action="store_true", help="print how the calls ended")
    options = parser.parse_args()
    print(f"fuzzing the services for {options.seconds:g} s, seed {options.seed}", flush=True)
    report = Run(options.seed, options.seconds, options.first, options.count).run()
    if options.table:
        for (method, status), count in sorted(report.ended.items()):
            print(f"{method:20}{status:22}{count:>8}")
    tell(report, options.seed, KEPT)
    return 1 if report.found else 0


if __name__ == "__main__":
    sys.exit(main())
