"""What tests of Ray Data compare, and how they ask the services what is open."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import ray.data
from support.exchanges import until

import cosco.ray
from cosco import CoscoExchange
from cosco.admin import all_exchanges

_CLOSE_S = 60.0
Job = Callable[[], ray.data.Dataset]


class ExchangesMade:
    """Counts the exchanges that were made since it was asked last."""

    def __init__(self, metadata: str) -> None:
        self._metadata = metadata
        self._last = self._newest()

    def __call__(self) -> int:
        before, self._last = self._last, self._newest()
        return self._last - before - 1

    def _newest(self) -> int:
        name = f"newest-{uuid.uuid4().hex}"
        with CoscoExchange(name, 1, metadata=self._metadata) as exchange:
            return exchange.handle().number


def both(job: Job, metadata: str, **options: Any) -> tuple[list[Any], list[Any]]:
    """The rows that a job gives with Ray alone, and those through Cosco."""
    cosco.ray.disable()
    alone = job().take_all()
    cosco.ray.enable(metadata, **options)
    return alone, job().take_all()


def in_some_order(rows: list[Any]) -> list[str]:
    """Rows as text, sorted: hash shuffles promise no order."""
    return sorted(map(repr, rows))


def open_exchanges(metadata: str) -> list[str]:
    """The exchanges that datasets have open."""
    return [
        exchange.shuffle_id
        for exchange in all_exchanges(metadata)
        if exchange.shuffle_id.startswith("ray-") and not exchange.closing
    ]


def none_is_left(metadata: str) -> None:
    """Wait until datasets have no exchange open."""
    until(lambda: not open_exchanges(metadata), _CLOSE_S, "the end of all exchanges")
