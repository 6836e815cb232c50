"""Workers that succeed, fail, die, and are stopped; functions here are what they run."""

from __future__ import annotations

import os
import time

import psutil
import pytest

from cosco.errors import CommitTimeout
from cosco.local.workers import Link, TaskPool, WorkerFailed, Workers, peak_rss_bytes


def add(link: Link, a: int, b: int) -> int:
    link.progress(a)
    link.progress(b)
    return a + b


def fail(_link: Link) -> None:
    raise CommitTimeout("no commit", mappers=[3])


def die(_link: Link) -> None:
    os._exit(7)


def fill_memory_after_start(link: Link, size: int) -> int:
    link.wait_for_start()
    spent = time.process_time()
    while time.process_time() - spent < 0.05:
        pass
    return len(bytearray(b"x" * size))


def pid_and(link: Link, number: int) -> tuple[int, int]:
    link.progress(number)
    return os.getpid(), number


def sleep_forever(link: Link) -> None:
    link.wait_for_start()
    time.sleep(3600)


def test_results_come_in_the_order_of_the_arguments_with_progress() -> None:
    progress: list[int] = []
    with Workers("adder", add, [(1, 2), (10, 20)]) as workers:
        results = workers.results(progress.append)
    assert [result.value for result in results] == [3, 30]
    assert sorted(progress) == [1, 2, 10, 20]


def test_usage_is_measured_from_the_start_on() -> None:
    with Workers("filler", fill_memory_after_start, [(64 << 20,)]) as workers:
        workers.wait_until_ready()
        workers.start()
        (result,) = workers.results()
    assert 0.05 <= result.cpu_s < 1
    assert result.peak_rss_bytes > 64 << 20


def test_an_error_is_raised_with_its_attributes() -> None:
    with (
        Workers("failer", fail, [()]) as workers,
        pytest.raises(CommitTimeout, match="no commit") as raised,
    ):
        workers.results()
    assert raised.value.mappers == (3,)


def test_a_death_is_an_error_that_says_who_and_how() -> None:
    with (
        Workers("dier", die, [()]) as workers,
        pytest.raises(WorkerFailed, match=r"dier 0 of 1 .* code 7"),
    ):
        workers.results()


def test_leaving_ends_all_of_them() -> None:
    with Workers("sleeper", sleep_forever, [(), ()]) as workers:
        workers.wait_until_ready()
        workers.start()
        children = psutil.Process().children()
        assert len(children) >= 2
    assert not [child for child in children if child.is_running() and "spawn_main" in
                " ".join(child.cmdline())]  # fmt: skip


def test_peak_memory_of_a_process() -> None:
    assert 1 << 20 < peak_rss_bytes() < 1 << 40
    assert peak_rss_bytes(os.getpid()) == pytest.approx(peak_rss_bytes(), rel=0.1)


def test_a_pool_takes_more_tasks_than_it_has_processes() -> None:
    progress: list[int] = []
    with TaskPool("executor", 2) as pool:
        first = [worker.value for worker in pool.run(pid_and, [(i,) for i in range(7)])]
        second = pool.run(pid_and, [(1,), (2,)], progress.append)
        assert pool.run(pid_and, []) == []
    assert [number for _, number in first] == list(range(7))
    assert len({pid for pid, _ in first}) <= 2
    assert {worker.value[0] for worker in second} <= {pid for pid, _ in first}
    assert sorted(progress) == [1, 2]
    assert all(worker.cpu_s < 1 for worker in second)


def test_a_pool_raises_what_a_task_raised() -> None:
    with TaskPool("executor", 1) as pool, pytest.raises(CommitTimeout):
        pool.run(fail, [()])
    with TaskPool("executor", 1) as pool, pytest.raises(WorkerFailed, match="executor 0 of 1"):
        pool.run(die, [()])
