"""A frame of Daft through Cosco: its rows are in partitions by key, and stay off the workers.

pip install 'cosco[daft]'
python examples/daft_repartition.py
"""

from __future__ import annotations

import daft
from daft import col

import cosco
import cosco.daft

if __name__ == "__main__":
    with cosco.LocalCluster() as cluster:  # yours runs elsewhere: metadata="host:7070"
        orders = daft.from_pydict({"customer": [1, 2, 1, 3, 2], "price": [10, 20, 30, 40, 50]})
        by_customer = cosco.daft.repartition(orders, 4, "customer", metadata=cluster.metadata)
        # Daft knows how the rows lie, and does not shuffle them again.
        totals = by_customer.groupby("customer").agg(col("price").sum())
        for customer, price in sorted(zip(*totals.to_pydict().values(), strict=True)):
            print(f"customer {customer}: {price}")
