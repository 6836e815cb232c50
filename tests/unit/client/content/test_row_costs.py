from __future__ import annotations

import random

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from support.arrow_arrays import random_array, random_type

from cosco.client.content.arrow_transport import transport
from cosco.client.content.row_costs import batch_bytes, batch_costs
from cosco.errors import SchemaMismatch


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32))
def test_rows_cost_what_they_take_as_plain_ones(seed: int) -> None:
    rng = random.Random(seed)
    schema = pa.schema([("c", random_type(rng, 3))])
    column = random_array(rng, schema.field(0).type, 40)
    batch = pa.RecordBatch.from_arrays([column], schema=schema)
    costs = batch_costs(batch)
    assert len(costs) == 40
    assert costs.min() >= 0
    try:
        way = transport(schema)
    except SchemaMismatch:
        return
    plain = way.to_plain(batch, way.new_pools())
    length = pa.ipc.get_record_batch_size(plain)
    overhead = 2000  # of a message, with much nesting
    assert length <= costs.sum() * 1.25 + overhead
    assert costs.sum() <= 8 * length + overhead
    for start in (0, 13):
        assert (batch_costs(batch.slice(start, 9)) == costs[start : start + 9]).all()


def test_the_size_of_list_views() -> None:
    """Which Arrow 19 does not tell, and raises."""
    views = pa.array([[1, 2], None, [3]], pa.list_view(pa.int64()))
    assert batch_bytes(pa.record_batch([views], ["c"])) > 0
