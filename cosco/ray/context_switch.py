"""What `enable` writes into a DataContext. Ray carries it to wherever a dataset is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from cosco import Connection

#: Keys of settings in a DataContext (`set_config`).
SWITCH: Final = "cosco.ray"
#: Whether map tasks' inputs are kept so that they can run again: True, False, or None for what
#: suits the number of copies. Anybody may set it.
KEEP_INPUTS: Final = "cosco.ray.keep_inputs"


@dataclass(frozen=True, slots=True)
class Switch:
    """How datasets of a context are to be shuffled, and what was set before."""

    metadata: Connection
    replicas: int
    #: Attributes of the context that `enable` changed, and the values to give back.
    before: tuple[tuple[str, Any], ...]
