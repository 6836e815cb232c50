"""URLs of stores in HDFS; nothing is opened."""

from __future__ import annotations

import pytest

from cosco.dfs import open_store
from cosco.dfs.hdfs.hdfs_store import HdfsStore
from cosco.errors import InvalidArgument


@pytest.mark.parametrize(
    "url",
    [
        "hdfs://host:8020/a",
        "hdfs://nameservice1/a/b/",
        "hdfs://10.0.0.1:9000/a%20b?replication=2",
        "hdfs://[::1]:9000/a?fsync=false&timeout_s=30",
    ],
)
def test_urls_that_are_taken(url: str) -> None:
    store = open_store(url)
    assert isinstance(store, HdfsStore)
    assert store.url == url
    assert store.durable


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("hdfs:///a", "names no namenode"),
        ("hdfs://:8020/a", "names no namenode"),
        ("hdfs://host:0/a", "names no namenode"),
        ("hdfs://host:port/a", "is no URL"),
        ("hdfs://host:99999/a", "is no URL"),
        ("hdfs://ho st:1/a", "names no namenode"),
        ("hdfs://host:8020", "names no folder"),
        ("hdfs://host:8020/", "names no folder"),
        ("hdfs://host:8020/a//b", "names no folder"),
        ("hdfs://host:8020/a/../b", "names no folder"),
        ("hdfs://host:8020/a:b", "names no folder"),
        ("hdfs://host:8020/a%0ab", "names no folder"),
        ("hdfs://host:8020/a?replication=0", "unknown parameter"),
        ("hdfs://host:8020/a?replication=513", "unknown parameter"),
        ("hdfs://host:8020/a?replication=x", "unknown parameter"),
        ("hdfs://host:8020/a?fsync=maybe", "unknown parameter"),
        ("hdfs://host:8020/a?timeout_s=0", "unknown parameter"),
        ("hdfs://host:8020/a?user=me", "unknown parameter"),
        ("hdfs://host:8020/a?replication", "is no URL"),
        ("hdfs://host:8020/a#b", "unknown parameter"),
        ("hdfs://me:pw@host:8020/a", "a user or a password"),
    ],
)
def test_urls_that_are_refused(url: str, reason: str) -> None:
    with pytest.raises(InvalidArgument, match=reason):
        open_store(url)
