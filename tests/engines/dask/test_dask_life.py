"""No exchange is left behind, however a shuffle ends; and what can be seen of one meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import dask
import dask.dataframe as dd
import pandas as pd
import pytest
from distributed import Client, wait
from support.dask_jobs import (
    Job,
    fails_once,
    kill_workers,
    nothing_left,
    open_exchanges,
    profiled_amid_garbage,
    progress_until,
    worker_pids,
)
from support.exchanges import until

import cosco.dask
from cosco import CoscoExchange

pytestmark = pytest.mark.timeout(180)


def test_a_worker_that_is_profiled_goes_on(own_client: Client) -> None:
    """Python 3.11 stops for ever if garbage is collected in the middle of a look at threads."""
    frame = dd.from_pandas(pd.DataFrame({"key": range(40)}), npartitions=4)
    wait(own_client.persist(frame.shuffle("key")))  # both workers have had a task of ours
    looks = own_client.map(lambda _: profiled_amid_garbage(), range(4), pure=False)
    assert own_client.gather(looks) == [119] * 4


def test_a_cancelled_shuffle_ends(client: Client, metadata: str, tmp_path: Path) -> None:
    for run in range(2):
        job = Job(tmp_path / f"{run}", run, map_s=0.2)
        future = client.compute(job.frame())
        progress_until(client, lambda one: one["mappers_done"] > 1, "the first rows")
        assert open_exchanges(metadata) == 1
        future.cancel()
        nothing_left(metadata)
        assert cosco.dask.progress(client) in ([], ())


def test_a_shuffle_whose_input_fails_ends_with_its_error(
    client: Client, metadata: str, tmp_path: Path
) -> None:
    job = Job(tmp_path / "runs", 0, map_s=0.02, bad=7)
    future = client.compute(job.frame())
    with pytest.raises(ZeroDivisionError, match="a bad source"):
        future.result(timeout=60)
    nothing_left(metadata)  # while somebody still holds the future


def test_a_shuffle_that_failed_can_be_tried_again(
    client: Client, metadata: str, tmp_path: Path
) -> None:
    """With an exchange of its own: the first one ended with the error."""
    job = Job(tmp_path / "runs", 0, map_s=0.02)
    sign = tmp_path / "runs" / "broken"
    shuffled = job.shuffled()
    shuffled = shuffled.map_partitions(fails_once, str(sign), meta=shuffled._meta)
    sign.touch()
    future = client.compute(shuffled)
    with pytest.raises(ZeroDivisionError):
        future.result(timeout=60)
    sign.unlink()
    future.release()
    future = client.compute(shuffled)
    assert len(future.result(timeout=60)) == len(job.shuffled("p2p", is_quick=True))


def test_outputs_that_are_kept_keep_their_exchange(
    own_client: Client, metadata: str, tmp_path: Path
) -> None:
    """A worker that dies with some of them costs no source: they are read again."""
    job = Job(tmp_path / "runs", 0)
    kept = job.shuffled().persist()
    wait(kept)
    assert open_exchanges(metadata) == 1
    kill_workers(own_client, *worker_pids(own_client))
    assert len(kept) == len(job.shuffled("p2p", is_quick=True))
    assert job.count() == job.mappers
    del kept
    nothing_left(metadata)


def test_a_restart_ends_all(own_client: Client, metadata: str, tmp_path: Path) -> None:
    job = Job(tmp_path / "runs", 0, map_s=0.3)
    future = own_client.compute(job.frame())
    progress_until(own_client, lambda one: one["mappers_done"] > 1, "the first rows")
    own_client.restart(wait_for_workers=False)
    nothing_left(metadata)
    own_client.wait_for_workers(2, timeout=90)
    assert future.status == "cancelled"
    quick = Job(tmp_path / "more", 1)
    pd.testing.assert_frame_equal(quick.frame().compute(), quick.expected())


def test_a_client_that_closes_ends_its_shuffles(
    bare_client: Client, metadata: str, tmp_path: Path
) -> None:
    with Client(bare_client.scheduler.address) as client:
        cosco.dask.enable(client, metadata)
        job = Job(tmp_path / "runs", 0, map_s=0.2)
        future = client.compute(job.frame())
        progress_until(client, lambda one: one["mappers_done"] > 1, "the first rows")
    assert future.status == "cancelled"
    nothing_left(metadata)


def test_a_shuffle_that_ends_while_it_is_asked_how_far_it_is(
    client: Client, metadata: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [client.compute(Job(tmp_path / "runs", 0, partitions=2).shuffled())]
    wait(kept)
    ask = CoscoExchange.progress

    def end_and_ask(exchange: CoscoExchange) -> object:  # the scheduler is in this process
        kept.clear()
        nothing_left(metadata)
        return ask(exchange)

    monkeypatch.setattr(CoscoExchange, "progress", end_and_ask)
    assert not cosco.dask.progress(client)


SCRIPT = """
    import sys, time
    import distributed
    import cosco.dask
    from pathlib import Path
    from support.dask_jobs import Job, dask_client
    if __name__ == "__main__":
        with dask_client(2) as client:
            cosco.dask.enable(client, sys.argv[1])
            future = client.compute(Job(Path(sys.argv[2]), 0, map_s=0.2).frame())
            while not any(one["mappers_done"] for one in cosco.dask.progress(client)):
                time.sleep(0.05)
            print("begun", flush=True)
            if sys.argv[3] == "end":
                sys.exit(0)
            time.sleep(600)
"""


def environment() -> dict[str, str]:
    """What a program needs to import what tests import."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.mark.parametrize("end", ["end", "interrupt"])
def test_a_program_that_ends_in_the_middle_leaves_nothing(
    metadata: str, tmp_path: Path, end: str
) -> None:
    """Its scheduler closes with it, and ends what is open."""
    script = tmp_path / "job.py"
    script.write_text(textwrap.dedent(SCRIPT))
    job = subprocess.Popen(
        [sys.executable, script, metadata, tmp_path / "runs", end],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
        text=True,
    )
    try:
        assert job.stdout is not None
        assert job.stdout.readline() == "begun\n"
        if end == "interrupt":
            job.send_signal(signal.SIGINT)
        job.wait(60)
    finally:
        job.kill()
        job.wait()
        job.stdout.close()
    nothing_left(metadata)


def test_fewer_workers_and_more(own_client: Client, metadata: str, tmp_path: Path) -> None:
    """As an adaptive cluster has them: workers that leave in good order take nothing along."""
    job = Job(tmp_path / "runs", 0, map_s=0.1, reduce_s=0.1)
    future = own_client.compute(job.frame())
    job.wait_for("source", 5)
    own_client.cluster.scale(1)
    until(lambda: len(own_client.nthreads()) == 1, 60.0, "one worker")
    job.wait_for("reduce", 2)
    own_client.cluster.scale(3)
    pd.testing.assert_frame_equal(future.result(timeout=100), job.expected())
    # A worker that leaves drops what it is running, and a source that it has not transferred yet.
    assert job.count() <= job.mappers + 2


def test_what_can_be_seen_of_a_shuffle(client: Client, tmp_path: Path) -> None:
    job = Job(tmp_path / "runs", 0, map_s=0.1)
    kept = job.shuffled().persist()
    wait(kept)
    [seen] = cosco.dask.progress(client)
    assert seen["mappers"] == seen["mappers_done"] == job.mappers
    assert seen["partitions"] == job.partitions
    assert seen["rows"] == len(kept)
    assert seen["bytes_raw"] > seen["rows"] * 8
    assert seen["is_complete"]
    assert not seen["mappers_owed"]
    names = {str(key).partition("-" + seen["shuffle"])[0] for key in known_tasks(client)}
    assert {"('cosco-transfer", "cosco-barrier", "('cosco-unpack"} <= names
    events = [event["action"] for _, event in client.get_events("cosco")]
    assert events[-1] == "shuffle-began"
    del kept
    until(lambda: client.get_events("cosco")[-1][1]["action"] == "shuffle-ended", 20.0, "its end")


def known_tasks(client: Client) -> list[object]:
    keys: list[object] = client.run_on_scheduler(
        lambda dask_scheduler: [str(key) for key in dask_scheduler.tasks]
    )
    return keys


def test_without_a_metadata_service_a_shuffle_says_so(bare_client: Client, tmp_path: Path) -> None:
    cosco.dask.enable(bare_client, "127.0.0.1:1")
    with pytest.raises(cosco.ServiceUnavailable, match=r"127\.0\.0\.1:1"):
        Job(tmp_path, 0, mappers=2).shuffled(is_quick=True).compute()
    cosco.dask.disable(bare_client)


CONFIG = """
    distributed:
      client: {preload: [cosco.dask.preload]}
      scheduler: {preload: [cosco.dask.preload]}
    dataframe: {shuffle: {method: cosco}}
    cosco: {metadata: "%s", replicas: 1}
"""


def test_configuration_alone_switches(metadata: str, tmp_path: Path) -> None:
    (tmp_path / "cosco.yaml").write_text(textwrap.dedent(CONFIG) % metadata)
    code = """if True:
        from pathlib import Path
        import dask.dataframe as dd, pandas as pd, distributed
        import support.dask_jobs
        if __name__ == "__main__":
            with support.dask_jobs.dask_client(1) as client:
                frame = pd.DataFrame({"key": [1, 2, 3, 4] * 5, "x": range(20)})
                got = dd.from_pandas(frame, npartitions=4).shuffle("key").compute()
                assert got.sort_index().equals(frame)
                print([event["action"] for _, event in client.get_events("cosco")])
    """
    script = tmp_path / "job.py"
    script.write_text(textwrap.dedent(code))
    job = subprocess.run(
        [sys.executable, script],
        env=environment() | {"DASK_CONFIG": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert "shuffle-began" in job.stdout, job.stderr
    nothing_left(metadata)
    assert dask.config.get("dataframe.shuffle.method", None) is None
