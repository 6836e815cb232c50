"""Builds one apart work together: each as service, as daemon and as client of the other."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Final

import pytest
from support.versions import IS_THERE, NEW, OLD, Build, Cluster, cluster
from versions.program import digest, row

from cosco.observe import fetch_status
from cosco.process.build import VERSION

pytestmark = pytest.mark.skipif(
    not IS_THERE, reason="the build before this one is not here: `make versions` says why"
)
PARTITIONS: Final = 4
ROWS: Final = 2000
#: All that is not new alone, which other tests have, and old alone.
MIXED: Final = [
    (metadata, daemons, client)
    for metadata, daemons, client in itertools.product(
        (NEW, OLD), ((NEW, NEW), (OLD, OLD), (NEW, OLD)), (NEW, OLD)
    )
    if {metadata, *daemons, client} == {NEW, OLD}
]


def expected(mappers: range, rows: int, partition: int) -> dict[str, object]:
    return digest([row(m, n) for m in mappers for n in range(rows) if n % PARTITIONS == partition])


def named(one: Build | tuple[Build, ...]) -> str:
    builds = [one] if isinstance(one, Build) else one
    return "+".join(build.name for build in builds)


def shuffle(services: Cluster, build: Build, other: Build) -> None:
    """A driver and a writer of one build, a writer and a reader of the other, a reader of each."""
    driver = services.client(build, "drive", "x", PARTITIONS, 2)
    assert driver.said() == {"package": str(build.tree)}
    writers = [
        services.client(of, "write", "x", mapper, PARTITIONS, 2, ROWS // 2)
        for mapper, of in enumerate((build, other))
    ]
    for writer in writers:
        for _ in range(2):
            writer.said()
            writer.go_on()
        assert writer.said() == {"rows": ROWS}
        writer.ends()
    for partition, of in enumerate((build, other, build, other)):
        reader = services.client(of, "read", "x", "0,1", partition)
        assert reader.said() == expected(range(2), ROWS, partition)
        reader.ends()
    driver.go_on()
    assert driver.said() == {"called": []}
    driver.ends()


@pytest.mark.parametrize(("metadata", "daemons", "client"), MIXED, ids=named)
def test_a_shuffle(
    metadata: Build, daemons: tuple[Build, Build], client: Build, tmp_path: Path
) -> None:
    with cluster(tmp_path, metadata, *daemons) as services:
        shuffle(services, client, client)


def test_clients_of_both_builds_in_one_exchange(tmp_path: Path) -> None:
    with cluster(tmp_path, NEW, NEW, OLD) as services:
        shuffle(services, OLD, NEW)
        told = {one.ref.address: one.version for one in fetch_status(services.metadata).daemons}
        new, old = (one.address for one in services.daemons)
        assert told == {new: VERSION, old: ""}


@pytest.mark.parametrize("dies", [NEW, OLD], ids=named)
def test_a_copy_of_the_other_build_takes_over(dies: Build, tmp_path: Path) -> None:
    """Each daemon is the primary of a part of the ranges, and the other one has its copies."""
    with cluster(tmp_path, NEW, NEW, OLD) as services:
        driver = services.client(NEW, "drive", "x", PARTITIONS, 2)
        driver.said()
        writer = services.client(NEW, "write", "x", 0, PARTITIONS, 1, ROWS)
        writer.said()
        services.daemons[0 if dies is NEW else 1].kill()
        writer.go_on()
        assert writer.said() == {"rows": ROWS}
        for partition in range(PARTITIONS):
            reader = services.client(NEW, "read", "x", "0", partition)
            assert reader.said() == expected(range(1), ROWS, partition)
        driver.go_on()
        assert driver.said() == {"called": []}


def test_a_rolling_upgrade_under_an_exchange(tmp_path: Path) -> None:
    """First the metadata service, which takes over the database, then the daemons, one by one; a
    writer of each build writes before, between and after, and nothing is called back or lost."""
    with cluster(tmp_path, OLD, OLD, OLD, OLD) as services:
        driver = services.client(OLD, "drive", "x", PARTITIONS, 2)
        driver.said()
        upgrades = [services.service, *services.daemons]
        parts = len(upgrades) + 1
        writers = [
            services.client(of, "write", "x", mapper, PARTITIONS, parts, ROWS)
            for mapper, of in enumerate((OLD, NEW))
        ]
        for part in range(parts):
            for writer in writers:
                assert writer.said() == {"part": part}
            if part < len(upgrades):
                upgrades[part].stop()
                upgrades[part].start(NEW)
            for writer in writers:
                writer.go_on()
        for writer in writers:
            assert writer.said() == {"rows": parts * ROWS}
        for partition, of in enumerate((OLD, NEW, OLD, NEW)):
            reader = services.client(of, "read", "x", "0,1", partition)
            assert reader.said() == expected(range(2), parts * ROWS, partition)
        status = fetch_status(services.metadata)
        assert status.version == VERSION
        driver.go_on()
        assert driver.said() == {"called": []}
        assert list(tmp_path.glob("metadata.db.schema-*"))
