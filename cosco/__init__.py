"""Cosco: a shuffle service that keeps map output off the compute machines.

Drivers hold a `CoscoExchange`, mappers write with `CoscoWriter`, reducers read with
`CoscoReader`; engines of micro-batches hold a `CoscoExchangeGroup`. `LocalCluster` runs the
services on this machine. README.md begins with an example, and docs/words.md has the words.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from cosco.client.groups.group_size import AdaptiveGroupSize
from cosco.errors import (
    AccessDenied,
    CapacityExceeded,
    ClientClosed,
    CommitTimeout,
    CoscoError,
    DataCorrupted,
    DataLost,
    EngineUnavailable,
    ExchangeClosed,
    ExchangeExists,
    ExchangeNotFound,
    GenerationChanged,
    IncompatibleVersion,
    InvalidArgument,
    InvalidRow,
    NotPicklable,
    PartitionOutOfRange,
    RecomputeMismatch,
    SchemaMismatch,
    ServiceUnavailable,
)
from cosco.process import arrow_pool, fork_support
from cosco.process.build import VERSION
from cosco.protocol.records import Commit, ExchangeProgress

if TYPE_CHECKING:
    from cosco.client.access.service_connection import Connection
    from cosco.client.driver.application import CoscoApplication
    from cosco.client.driver.exchange import CoscoExchange
    from cosco.client.driver.exchange_handle import ExchangeHandle
    from cosco.client.groups.group import CoscoExchangeGroup
    from cosco.client.groups.handle import GroupHandle
    from cosco.client.read.reader import CoscoReader
    from cosco.client.write.writer import CoscoWriter
    from cosco.local.cluster import LocalCluster

fork_support.turn_on()  # now: somebody may import gRPC long before the first name that needs it
arrow_pool.leave_in_children()

__all__ = [
    "AccessDenied",
    "AdaptiveGroupSize",
    "CapacityExceeded",
    "ClientClosed",
    "Commit",
    "CommitTimeout",
    "Connection",
    "CoscoApplication",
    "CoscoError",
    "CoscoExchange",
    "CoscoExchangeGroup",
    "CoscoReader",
    "CoscoWriter",
    "DataCorrupted",
    "DataLost",
    "EngineUnavailable",
    "ExchangeClosed",
    "ExchangeExists",
    "ExchangeHandle",
    "ExchangeNotFound",
    "ExchangeProgress",
    "GenerationChanged",
    "GroupHandle",
    "IncompatibleVersion",
    "InvalidArgument",
    "InvalidRow",
    "LocalCluster",
    "NotPicklable",
    "PartitionOutOfRange",
    "RecomputeMismatch",
    "SchemaMismatch",
    "ServiceUnavailable",
    "__version__",
]

__version__ = VERSION

#: Imported at their first use: the services import this package too, and stay without Arrow.
_LAZY: Final = {
    "Connection": "cosco.client.access.service_connection",
    "CoscoApplication": "cosco.client.driver.application",
    "CoscoExchange": "cosco.client.driver.exchange",
    "CoscoExchangeGroup": "cosco.client.groups.group",
    "ExchangeHandle": "cosco.client.driver.exchange_handle",
    "GroupHandle": "cosco.client.groups.handle",
    "CoscoReader": "cosco.client.read.reader",
    "CoscoWriter": "cosco.client.write.writer",
    "LocalCluster": "cosco.local.cluster",
}


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(module), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
