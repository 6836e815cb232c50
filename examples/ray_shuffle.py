"""Sum sales by customer in Ray Data, whose shuffle goes through Cosco.

pip install 'cosco[ray]', then: python examples/ray_shuffle.py
"""

import numpy as np
import ray
import ray.data

import cosco.ray
from cosco import LocalCluster

with LocalCluster(daemons=2) as cluster:  # the services, on this machine
    ray.init(num_cpus=2, include_dashboard=False)
    cosco.ray.enable(cluster.metadata)  # the one line

    sales = ray.data.range(100_000, override_num_blocks=8).map_batches(
        lambda batch: {"customer": batch["id"] % 7, "price": np.ones(len(batch["id"]))}
    )
    for row in sales.groupby("customer").sum("price").sort("customer").take_all():
        print(row)
    ray.shutdown()
