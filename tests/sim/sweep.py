"""Many seeds, in as many processes as there are cores."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import takewhile

from .runner import Result, run_seed
from .scenario import seeds_of_applications, seeds_of_groups, seeds_of_tiers

_CHUNK = 8
#: Of one worker process, as worlds leave a little behind.
_CHUNKS = 50


def _run(seed: int, broken: str | None) -> Result:
    if broken is not None:
        from . import breaks

        breaks.apply(broken)
    return run_seed(seed)


def results(seeds: Iterable[int], workers: int, broken: str | None = None) -> Iterator[Result]:
    """The results of seeds, in their order."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, maxtasksperchild=_CHUNKS) as pool:
        yield from pool.imap(partial(_run, broken=broken), seeds, chunksize=_CHUNK)


def _say(text: str) -> None:
    print(text, flush=True)


def run_many(
    seeds: Iterable[int],
    workers: int,
    broken: str | None = None,
    *,
    coverage: bool = False,
    say: Callable[[str], None] = _say,
) -> int:
    """Run seeds and report; 1 if any failed."""
    started = time.perf_counter()
    failed: list[Result] = []
    count = losses = 0
    seen: Counter[str] = Counter()
    for result in results(seeds, workers, broken):
        count += 1
        losses += bool(result.losses)
        seen.update(result.counts.keys())
        if result.problems:
            failed.append(result)
            what = result.problems[0].splitlines()[0]
            brief = f"seed {result.seed} failed: {what}; replay it with: {result.replay}"
            say(result.report() if len(failed) <= 3 else brief)
    if coverage:
        say("seeds in which it happened:")
        for what, seeds_of in sorted(seen.items()):
            say(f"{seeds_of:7} {what}")
    seconds = time.perf_counter() - started
    say(
        f"{count} seeds in {seconds:.1f} s, {len(failed)} failed, {losses} lost rows and "
        "recomputed them"
    )
    return int(bool(failed))


def run_here(seeds: Iterable[int], *, trace: bool, broken: str | None) -> int:
    """Run seeds in this process."""
    if broken is not None:
        from . import breaks

        breaks.apply(broken)
    status = 0
    for seed in seeds:
        result = run_seed(seed, echo=trace)
        if result.problems:
            status = 1
            print(result.report())
        else:
            print(
                f"seed {seed}: ok, {result.virtual_s:.1f} s of its time in {result.wall_s:.2f} s, "
                f"{result.steps} steps, {result.reads} reads, {result.losses} losses, "
                f"trace {result.digest}"
            )
    return status


def measure_breaks(limit: int, workers: int, only: str | None) -> int:
    """For every break the seeds it takes to notice it, from seed 0 on; 1 if one never was."""
    from . import breaks

    missed = 0
    print("| break | what is wrong | seeds | how it shows |")
    print("| --- | --- | ---: | --- |")
    for name in [only] if only else list(breaks.BREAKS):
        seeds, how = 0, ""
        tried: Iterable[int] = range(limit)
        if breaks.BREAKS[name].groups:  # it does nothing in others
            tried = takewhile(lambda seed: seed < limit, seeds_of_groups(0))
        elif breaks.BREAKS[name].applications:
            tried = takewhile(lambda seed: seed < limit, seeds_of_applications(0))
        elif breaks.BREAKS[name].tiers:
            tried = takewhile(lambda seed: seed < limit, seeds_of_tiers(0))
        for result in results(tried, workers, name):
            seeds = result.seed + 1
            if result.problems:
                how = result.problems[0].splitlines()[0][:110]
                break
        missed += not how
        print(
            f"| `{name}` | {breaks.BREAKS[name].what} | {seeds if how else f'> {limit}'} | {how} |",
            flush=True,
        )
    return int(bool(missed))
