"""What a service says to systemd (`Type=notify`), by the protocol of sd_notify(3).

A state is one datagram to the socket that NOTIFY_SOCKET names. Without that variable, nothing is
said; nothing that goes wrong here may harm the service.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from typing import Final

#: How the manager tells a process of itself.
VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
#: Signs of life in each time that the manager waits for one.
_SIGNS_PER_PERIOD: Final = 3


class ServiceManager:
    """Tells the manager that started this process how it is."""

    def __init__(self, environment: Mapping[str, str], pid: int) -> None:
        """`environment` and `pid` are those of this process."""
        path = environment.get("NOTIFY_SOCKET", "")
        # An abstract socket is written with @; everything else must be a path.
        self._address = "\0" + path[1:] if path.startswith("@") else path
        if not path.startswith(("@", "/")):
            self._address = ""
        #: Seconds between two signs of life; None: nobody waits for them.
        self.watchdog_s = _watchdog_s(environment, pid) if self._address else None

    def ready(self) -> None:
        """Say that the service serves."""
        self._say("READY=1")

    def stopping(self) -> None:
        """Say that the service ends, or drains first."""
        self._say("STOPPING=1")

    def alive(self) -> None:
        """Say that the service lives; to be called every `watchdog_s`."""
        self._say("WATCHDOG=1")

    def _say(self, state: str) -> None:
        if self._address:
            # Not waiting: a manager that does not read must not hold the service up.
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto(state.encode(), self._address)


def service_manager(environment: MutableMapping[str, str] = os.environ) -> ServiceManager:
    """Return this process's manager; what it starts in turn is not known to the manager."""
    found = ServiceManager(environment, os.getpid())
    for name in VARIABLES:
        environment.pop(name, None)
    return found


def _watchdog_s(environment: Mapping[str, str], pid: int) -> float | None:
    if environment.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None  # it is another process's
    period = environment.get("WATCHDOG_USEC", "")
    if not period.isdecimal() or not int(period):
        return None
    return int(period) / 1e6 / _SIGNS_PER_PERIOD
