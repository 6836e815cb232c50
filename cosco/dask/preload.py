"""Cosco by Dask's configuration alone: name this module as a preload.

    distributed:
      client: {preload: [cosco.dask.preload]}
      scheduler: {preload: [cosco.dask.preload]}
    dataframe:
      shuffle: {method: cosco}
    cosco: {metadata: "host:7070", replicas: 2}

A client's shuffles then go through Cosco wherever they would go by the configured method. Without
`cosco.metadata` the variable COSCO_METADATA counts.
"""

from __future__ import annotations

from typing import Any

import dask
from distributed import Client, Scheduler

from cosco import CoscoError
from cosco.dask.private_parts_of_dask import check
from cosco.dask.shuffle_plugin import NAME, ShufflePlugin
from cosco.dask.switch import SWITCH


async def dask_setup(service: Any) -> None:
    """Set a scheduler, or a client, up. Called by Dask when it starts."""
    if isinstance(service, Scheduler):
        check()
        plugin = ShufflePlugin(is_pinned=True)
        await service.register_scheduler_plugin(plugin, NAME, idempotent=True)
    elif isinstance(service, Client):
        try:
            await SWITCH.turn_on(
                service,
                dask.config.get("cosco.metadata", None),
                replicas=dask.config.get("cosco.replicas", 2),
                is_default=False,
            )
        except CoscoError as error:
            # Dask only notes the error of a preload, and the client goes on: its shuffles say it.
            SWITCH.refuse(service, error)
            raise
