"""What a faulty or hostile writer sends reaches a reader as an error, not as rows or a crash."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cosco import CoscoExchange, CoscoReader, CoscoWriter
from cosco.client.content.arrow import ContentEncoder
from cosco.client.write.state import packing_parts
from cosco.errors import DataCorrupted


@pytest.fixture
def read_changed(metadata: str, name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Has a writer send a batch whose block is changed, and reads it."""

    def run(batch: pa.RecordBatch, old: Any, new: Any, *, batches: bool) -> None:
        encode = ContentEncoder.encode

        def changed(*arguments: Any) -> bytes:
            content = bytes(encode(*arguments))
            assert content.count(old.tobytes()) == 1
            return content.replace(old.tobytes(), new.tobytes())

        schema = batch.schema
        with CoscoExchange(name, 1, schema=schema, replicas=1, metadata=metadata):
            with monkeypatch.context() as patched:
                # Arrow writes what is changed here, whoever would write it otherwise.
                patched.setattr(packing_parts, "NATIVE", None)
                patched.setattr(ContentEncoder, "encode", changed)
                with CoscoWriter(name, 0, metadata=metadata) as writer:
                    writer.collect_batch(np.zeros(batch.num_rows, np.int64), batch)
            with CoscoReader(name, [0], 0, metadata=metadata) as reader:
                with pytest.raises(DataCorrupted, match=f"{name}.*of mapper 0"):
                    list(reader.read_batches()) if batches else reader.read_table()

    return run


def int32(*values: int) -> Any:
    return np.array(values, np.int32)


@pytest.mark.parametrize("batches", [False, True], ids=["table", "batches"])
@pytest.mark.parametrize(
    "ends", [(0, 5, 3_000_000), (0, 1 << 30, 10), (0, -5, 10), (0, 7, 5)], ids=str
)
def test_text_whose_offsets_lie_beyond_it(
    read_changed: Any, ends: tuple[int, ...], batches: bool
) -> None:
    batch = pa.record_batch({"c": ["abcde", "fghij"]})
    read_changed(batch, int32(0, 5, 10), int32(*ends), batches=batches)


def test_lists_whose_offsets_lie_beyond_their_values(read_changed: Any) -> None:
    batch = pa.record_batch({"c": [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]})
    read_changed(batch, int32(0, 5, 10), int32(0, 5, 1 << 30), batches=False)


def test_codes_beyond_their_dictionary(read_changed: Any) -> None:
    codes = np.array([2, 1, 0, 2, 1, 0, 1, 2], np.int8)
    values = pa.array(["red", "green", "blue"])
    batch = pa.record_batch({"c": pa.DictionaryArray.from_arrays(pa.array(codes), values)})
    wrong = codes.copy()
    wrong[4] = 100
    read_changed(batch, codes, wrong, batches=False)


def test_a_union_with_members_that_it_does_not_have(read_changed: Any) -> None:
    codes = np.array([0, 1, 0, 1, 1, 1, 0, 1], np.int8)
    children = [pa.array(range(8)), pa.array(list("abcdefgh"))]
    batch = pa.record_batch({"c": pa.UnionArray.from_sparse(pa.array(codes), children)})
    wrong = codes.copy()
    wrong[4] = 77
    read_changed(batch, codes, wrong, batches=False)
