"""Whether one more daemon may register: their number is bounded, whoever says that he is one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from cosco.config import DAEMONS_MAX
from cosco.errors import ServiceUnavailable
from cosco.metadata.state.daemons.daemon_table import DAEMONS
from cosco.metadata.state.state import MetadataState
from cosco.process.native_grpc.rare_warnings import RareWarnings
from cosco.protocol.records import DaemonRef

log = logging.getLogger(__name__)


class DaemonRoom:
    """Refuses daemons beyond `daemons_max` that live; `refused` is called with the bound then."""

    def __init__(
        self,
        state: MetadataState,
        daemons_max: int = DAEMONS_MAX,
        refused: Callable[[str], object] = str,
    ) -> None:
        self._members = state.members
        self._daemons_max = daemons_max
        self._refused = refused
        self._warnings = RareWarnings(log)

    def check(self, ref: DaemonRef) -> None:
        """Raise ServiceUnavailable, which daemons try again, if there is no room for one more."""
        if self._members.has_room_for(ref, self._daemons_max):
            return
        self._refused(DAEMONS)
        text = "a daemon at %s cannot register: %s live already (--daemons)"
        self._warnings.tell(DAEMONS, time.monotonic(), text, ref.address, self._daemons_max)
        raise ServiceUnavailable(
            f"{self._daemons_max} shuffle daemons are registered already (--daemons of "
            "cosco-metadata); this one may register when others have ended"
        )
