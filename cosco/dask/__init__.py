"""Dask DataFrame through Cosco: one line to switch.

    client = distributed.Client("scheduler:8786")
    cosco.dask.enable(client, "metadata:7070")
    df.merge(other, on="key")  # shuffles, and all that shuffles below, go through Cosco

docs/engines.md says what switches and what does not, docs/architecture/dask.md how it works, and
docs/words.md what the terms mean.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from cosco.engine_versions import needed

__all__ = ["disable", "enable", "progress"]


def enable(client: Any, metadata: Any = None, *, replicas: int = 2, default: bool = True) -> Any:
    """Have the shuffles of a client go through Cosco.

    metadata: where the metadata service is, as the scheduler and workers reach it, or a
    `cosco.Connection`; None: as the variable COSCO_METADATA says. The scheduler needs a token, if
    the cluster asks for one, in a file there; workers need none. replicas: copies of each row in
    memory. default: make "cosco" the method of this process until `disable` or `client.close()`,
    for clients that were enabled; without it `shuffle_method="cosco"` chooses it for one operation.
    May be called again, to change that for shuffles that begin from then on. With an asynchronous
    client it is to be awaited.

    Raises: EngineUnavailable for versions that were not tried, or that differ between client,
    scheduler and workers; InvalidArgument.
    """
    switch = _switch()
    return client.sync(switch.turn_on, client, metadata, replicas=replicas, is_default=default)


def disable(client: Any) -> Any:
    """Give a client, and this process, back what they had. Harmless when it is off.

    Shuffles that have begun go on to their end.
    """
    switch = _switch()
    return client.sync(switch.turn_off, client)


def progress(client: Any) -> Any:
    """Return how far each open shuffle of a client's scheduler is, as a list of dicts.

    Each has `shuffle` (which is in the names of its tasks), `exchanges`, `mappers`, `mappers_done`,
    `mappers_owed` (those that have to run again), `partitions`, `is_complete`, `rows`, `bytes_raw`,
    `bytes_stored` and `called_back` (how often each mapper was).
    """
    return client.sync(client.scheduler.cosco_progress)


def _switch() -> Any:
    with needed("dask"):
        from cosco.dask.switch import SWITCH  # noqa: PLC0415  state/ needs no Dask
    return SWITCH


if find_spec("distributed") is not None:
    _switch().stand_by()
