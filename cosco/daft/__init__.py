"""Cosco for Daft: a repartition by hash that Daft takes for its own (extra `cosco[daft]`).

    frame = cosco.daft.repartition(frame, 64, "customer", metadata="host:7070")
    frame.groupby("customer").agg(daft.col("price").sum())  # needs no other shuffle

docs/engines.md says how to use it and what happens under failures, docs/words.md has the words.
"""

from __future__ import annotations

from cosco.engine_versions import check_versions, needed

with needed("daft"):
    from cosco.daft.repartitioning import repartition

check_versions("daft")

__all__ = ["repartition"]
