"""A commit that is made again: by a client whose reply was lost, or by somebody who says something
else in the same name. The calls of the second one are made by hand, as no writer makes them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from support.exchanges import describe, fetch, numbered, send

from cosco import (
    CoscoExchange,
    CoscoExchangeGroup,
    CoscoReader,
    CoscoWriter,
    DataCorrupted,
    LocalCluster,
)
from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.rpc.scope import Scope
from cosco.protocol.group_records import member_name
from cosco.protocol.records import AttemptSums, CommitRequest, pairs_array

TWICE = "committed twice, with different sums"
PARTITIONS = 2


def says_nothing(name: str, metadata: str, mapper: int, attempt: int) -> CommitRequest:
    """A commit by which the attempt has written no rows."""
    none32, none64 = np.array([], dtype=np.uint32), np.array([], dtype=np.uint64)
    sums = AttemptSums(none32, none64, none64, none64, none64)
    number = describe(name, metadata).number
    return CommitRequest(number, mapper, attempt, 1, pairs_array([]), sums)


def commit(request: CommitRequest, metadata: str) -> bool:
    client = MetadataClient(metadata, Scope("a stranger", ""), 10.0)
    try:
        return client.commit(request)
    finally:
        client.close()


def commits_of(monkeypatch: pytest.MonkeyPatch) -> list[CommitRequest]:
    """What writers of this process commit from now on."""
    seen: list[CommitRequest] = []
    original: Callable[[MetadataClient, CommitRequest], bool] = MetadataClient.commit

    def remember(self: MetadataClient, request: CommitRequest) -> bool:
        seen.append(request)
        return original(self, request)

    monkeypatch.setattr(MetadataClient, "commit", remember)
    return seen


def test_somebody_committed_nothing_in_the_writers_name_before_it_did(
    metadata: str, name: str
) -> None:
    with CoscoExchange(name, PARTITIONS, metadata=metadata):
        rows = numbered(1, 50, partitions=PARTITIONS)
        send(name, 2, rows, metadata)
        writer = CoscoWriter(name, 1, metadata=metadata)
        for partition, row in rows:
            writer.collect(partition, row)
        forged = says_nothing(name, metadata, 1, writer._opened.attempt)
        assert commit(forged, metadata)  # nobody can know yet
        with pytest.raises(DataCorrupted, match=TWICE) as told:
            writer.close()
        assert (told.value.mappers, told.value.shuffle_id) == ((1,), name)
        for partition in range(PARTITIONS):
            with pytest.raises(DataCorrupted, match=TWICE) as read:
                fetch(name, [1, 2], partition, metadata)
            assert (read.value.mappers, read.value.partition) == ((1,), partition)
        assert len(fetch(name, [2], 0, metadata)) == 25  # which nobody doubts


def test_somebody_committed_something_else_after_the_writer_did(metadata: str, name: str) -> None:
    with CoscoExchange(name, PARTITIONS, metadata=metadata):
        done = send(name, 1, numbered(1, 50, partitions=PARTITIONS), metadata)
        assert len(fetch(name, [1], 0, metadata)) == 25
        with pytest.raises(DataCorrupted, match=TWICE):
            commit(says_nothing(name, metadata, 1, done.attempt), metadata)
        with pytest.raises(DataCorrupted, match=TWICE):
            fetch(name, [1], 0, metadata)
        with pytest.raises(DataCorrupted, match=TWICE):  # not: another attempt has won
            send(name, 1, numbered(1, 50, partitions=PARTITIONS), metadata)


def test_a_reader_waits_while_somebody_commits_something_else(metadata: str, name: str) -> None:
    with CoscoExchange(name, PARTITIONS, metadata=metadata):
        done = send(name, 1, numbered(1, 50), metadata)
        with CoscoReader(name, [1, 7], 0, timeout_s=30, metadata=metadata) as reader:
            with ThreadPoolExecutor(1) as thread:
                waiting = thread.submit(reader.read_table)
                with pytest.raises(DataCorrupted):
                    commit(says_nothing(name, metadata, 1, done.attempt), metadata)
                with pytest.raises(DataCorrupted, match=TWICE):
                    waiting.result(20)


def test_it_is_remembered_over_a_restart_of_the_service(
    cluster: LocalCluster, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = cluster.metadata
    seen = commits_of(monkeypatch)
    with CoscoExchange(name, PARTITIONS, metadata=metadata):
        for mapper in (1, 2):
            send(name, mapper, numbered(mapper, 50), metadata)
        with pytest.raises(DataCorrupted, match=TWICE):
            commit(replace(seen[0], sums=seen[1].sums), metadata)
        cluster.metadata_service.kill()
        cluster.metadata_service.restart()
        with pytest.raises(DataCorrupted, match=TWICE):
            fetch(name, [1], 0, metadata)
        with pytest.raises(DataCorrupted, match=TWICE):
            commit(seen[0], metadata)
        assert commit(seen[1], metadata)
        assert len(fetch(name, [2], 0, metadata)) == 50


def test_the_reply_of_a_commit_was_lost_and_it_is_sent_again(
    metadata: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = commits_of(monkeypatch)
    with CoscoExchange(name, PARTITIONS, metadata=metadata):
        assert send(name, 1, numbered(1, 50), metadata).won
        assert [commit(seen[0], metadata) for _ in range(3)] == [True] * 3
        assert len(fetch(name, [1], 0, metadata)) == 50


def test_a_second_attempt_with_other_rows_only_does_not_win(metadata: str, name: str) -> None:
    with CoscoExchange(name, PARTITIONS, metadata=metadata):
        assert send(name, 1, numbered(1, 50), metadata).won
        assert not send(name, 1, numbered(1, 49), metadata).won
        assert len(fetch(name, [1], 0, metadata)) == 50


def test_a_commit_of_a_group_is_sent_again_and_one_says_something_else(
    metadata: str, name: str
) -> None:
    with CoscoExchangeGroup(name, PARTITIONS, 1, 1, metadata=metadata) as group:
        handle = group.handle()
        with handle.writer(0, 0) as writer:
            for partition, row in numbered(0, 50):
                writer.collect(partition, row)
            attempt = writer.close().attempt
        handle.flush()
        member = member_name(name, 0)
        request = says_nothing(member, metadata, 0, attempt)
        client = MetadataClient(metadata, Scope("a stranger", ""), 10.0)
        try:
            [result] = client.commit_batch([request], try_s=10.0)
        finally:
            client.close()
        assert isinstance(result.error, DataCorrupted)
        with pytest.raises(DataCorrupted, match=TWICE):
            fetch(member, [0], 0, metadata)
