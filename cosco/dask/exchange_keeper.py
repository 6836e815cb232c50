"""`ExchangeKeeper`: the exchanges of a scheduler, under one lease for each metadata service."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from cosco import CoscoApplication, CoscoError, CoscoExchange
from cosco.dask.dask_tasks import ShuffleSpec

#: What `cosco status` shows as whose they are.
_LABEL: Final = "dask"
#: A scheduler that is silent for this long has died: its exchanges go.
_LEASE_S: Final = 60.0
_LOG: Final = logging.getLogger("cosco.dask")


@dataclass(slots=True)
class _Held:
    """An application, and how many exchanges of it are there or being made."""

    application: CoscoApplication
    exchanges: int = 0


class ExchangeKeeper:
    """Makes exchanges and ends them. Its calls block, and are made on threads.

    An application is made with its first exchange and ends with its last one, so that none is used
    whose lease ran out while nothing was to be done.
    """

    def __init__(self) -> None:
        """Begin without applications."""
        self._lock = threading.Lock()
        self._held: dict[Any, _Held] = {}

    def make(
        self,
        spec: ShuffleSpec,
        schema: pa.Schema,
        callback: Callable[[list[int], str], None],
    ) -> CoscoExchange:
        """Create an exchange for rows of a shuffle.

        Raises: ServiceUnavailable, CapacityExceeded, InvalidArgument.
        """
        metadata = spec.settings.metadata
        with self._lock:
            held = self._held.get(metadata)
            if held is None:
                application = CoscoApplication(_LABEL, lease_s=_LEASE_S, metadata=metadata)
                held = self._held[metadata] = _Held(application)
            held.exchanges += 1
        try:
            return held.application.exchange(
                spec.partitions,
                callback,
                schema=schema,
                mappers=spec.mappers,
                replicas=spec.settings.replicas,
            )
        except BaseException:
            self._release(metadata, held)
            raise

    def end(self, spec: ShuffleSpec, exchange: CoscoExchange) -> None:
        """Close an exchange; what cannot be closed ends with the lease."""
        try:
            exchange.close()
        except CoscoError as error:
            _LOG.warning("exchange %s ends with its lease: %s", exchange.shuffle_id, error)
        metadata = spec.settings.metadata
        with self._lock:
            held = self._held[metadata]
        self._release(metadata, held)

    def _release(self, metadata: Any, held: _Held) -> None:
        with self._lock:
            held.exchanges -= 1
            if held.exchanges:
                return
            if self._held.get(metadata) is held:
                del self._held[metadata]
        try:
            held.application.close()
        except CoscoError as error:
            _LOG.warning("%s ends with its lease: %s", held.application.application_id, error)
