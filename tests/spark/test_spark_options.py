"""Settings that cannot work are refused at once; shuffles that Cosco cannot take now fall back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.exchanges import serving, until
from support.spark_sessions import spark_session

from cosco import LocalCluster

pytestmark = pytest.mark.timeout(120)

NOBODY = "127.0.0.1:9"
REFUSED: dict[str, tuple[dict[str, str], str]] = {
    "no such option": ({"cosco__replcias": "1"}, "there is no option spark.cosco.replcias"),
    "replicas": ({"cosco__replicas": "3"}, "spark.cosco.replicas=3: .*from 1 to 2"),
    "codec": ({"cosco__codec": "gzip"}, "spark.cosco.codec=gzip: give one of lz4, none"),
    "lease": ({"cosco__leaseS": "soon"}, "spark.cosco.leaseS=soon: give a whole number"),
    "fallback": ({"cosco__fallback": "no"}, "spark.cosco.fallback=no: give one of sort, fail"),
    "no size": ({"cosco__write__memory": "much"}, "spark.cosco.write.memory=much: give a size"),
    "size": ({"cosco__write__block": "2m"}, "spark.cosco.write.block=2m: give from 4096 to"),
    "address": ({"cosco__metadata": "host"}, "`host` is no address: give host:port"),
    "no authority": ({"cosco__tls__ca": "/no/ca.pem"}, "cannot be read: /no/ca.pem"),
    "no token": ({"cosco__tokenFile": "/no/token"}, "tokenFile cannot be read: .*/no/token"),
    "encryption": ({"io__encryption__enabled": "true"}, "spark.io.encryption.enabled is not"),
    "half of it": (
        {"shuffle__sort__io__plugin__class": "org.apache.spark.shuffle.sort.io."
         "LocalDiskShuffleDataIO"},
        "set spark.shuffle.sort.io.plugin.class=cosco.spark.CoscoDataIO",
    ),
}  # fmt: skip


@pytest.mark.every_spark
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused_when_the_session_starts(name: str, tmp_path: Path) -> None:
    conf, message = REFUSED[name]
    began = time.monotonic()
    with pytest.raises(Exception, match=message), spark_session(NOBODY, tmp_path, **conf):
        pass
    assert time.monotonic() - began < 60


@contextmanager
def logged(session: Any, path: Path) -> Iterator[None]:
    """Have the driver write what it logs to a file as well."""
    log4j = session._jvm.org.apache.logging.log4j
    session.sparkContext.setLogLevel("WARN")
    level = log4j.Level.WARN
    configuration = log4j.core.LoggerContext.getContext(False).getConfiguration()
    builder = log4j.core.appender.FileAppender.newBuilder()
    builder.setName(str(path))
    builder.withFileName(str(path))
    appender = builder.build()
    appender.start()
    configuration.getRootLogger().addAppender(appender, level, None)
    try:
        yield
    finally:
        configuration.getRootLogger().removeAppender(str(path))
        session.sparkContext.setLogLevel("ERROR")


def left(path: Path) -> list[str]:
    """Return the lines that say that a shuffle is left to Spark's own."""
    return [line for line in path.read_text().splitlines() if "left to Spark's own" in line]


def count(session: Any) -> dict[int, int]:
    pairs = session.sparkContext.parallelize(range(700), 4).map(lambda i: (i % 7, 1))
    return dict(pairs.reduceByKey(lambda a, b: a + b, 3).collect())


COUNTS = dict.fromkeys(range(7), 100)


@pytest.fixture
def empty() -> Iterator[LocalCluster]:
    """A cluster whose daemons are gone."""
    with LocalCluster(1, memory="64MiB") as cluster:
        cluster.daemons[0].kill()
        until(lambda: not serving(cluster.metadata), 30.0, "the loss of the daemon")
        yield cluster


def test_without_daemons_shuffles_are_left_to_sparks_own_until_there_is_one(
    empty: LocalCluster, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with (
        spark_session(empty.metadata, tmp_path, cosco__replicas="1") as session,
        logged(session, log),
    ):
        assert count(session) == COUNTS
        assert len(left(log)) == 1, log.read_text()
        assert "no shuffle daemon" in left(log)[0], left(log)
        empty.daemons[0].restart()
        until(lambda: bool(serving(empty.metadata)), 30.0, "the return of the daemon")
        assert count(session) == COUNTS
        assert len(left(log)) == 1, log.read_text()


def test_without_daemons_and_fallback_a_job_fails_with_the_reason(
    empty: LocalCluster, tmp_path: Path
) -> None:
    with (
        spark_session(empty.metadata, tmp_path, cosco_fallback="fail") as session,
        pytest.raises(Exception, match=r"Cosco cannot take shuffle .*no shuffle daemon"),
    ):
        count(session)


def test_a_service_that_is_nowhere_is_told_in_bounded_time(tmp_path: Path) -> None:
    began = time.monotonic()
    with (
        spark_session(NOBODY, tmp_path, cosco_fallback="fail") as session,
        pytest.raises(Exception, match=f"Cosco cannot take shuffle .*{NOBODY}"),
    ):
        count(session)
    assert time.monotonic() - began < 45


def test_without_a_service_shuffles_are_left_to_sparks_own(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with spark_session(NOBODY, tmp_path) as session, logged(session, log):
        assert count(session) == COUNTS
        assert len(left(log)) == 1, log.read_text()
        assert NOBODY in left(log)[0]
        began = time.monotonic()
        assert count(session) == COUNTS  # the wait for it is not to be had again
        assert time.monotonic() - began < 10


def test_a_session_ends_without_its_service(tmp_path: Path) -> None:
    with LocalCluster(1, memory="64MiB") as cluster:
        with spark_session(cluster.metadata, tmp_path) as session:
            assert count(session) == COUNTS
            cluster.metadata_service.kill()
            began = time.monotonic()
            session.stop()
            assert time.monotonic() - began < 30


def test_too_many_partitions_are_told(services: LocalCluster, tmp_path: Path) -> None:
    with spark_session(services.metadata, tmp_path) as session:
        pairs = session.sparkContext.parallelize([(1, 1)], 1)
        with pytest.raises(Exception, match=r"Cosco cannot take shuffle .*1048577.*1048576"):
            pairs.partitionBy((1 << 20) + 1).count()
        assert count(session) == COUNTS
