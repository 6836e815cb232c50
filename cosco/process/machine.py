"""Which machine this is, so that two copies of a row are never put on one."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

#: Kubernetes sets it in every container.
_POD_VARIABLE: Final = "KUBERNETES_SERVICE_HOST"
#: What the kernel calls its start: alike in all containers of a machine, as they share the kernel.
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_SHOWN_CHARACTERS: Final = 12


class Machine(NamedTuple):
    """The machine's id; `doubt` says why it may be better to name the machine."""

    host_id: str
    doubt: str = ""


def this_machine(
    host_id: str, environment: Mapping[str, str] = os.environ, boot_id: Path = BOOT_ID
) -> Machine:
    """Return the machine by the name it was given, or by what can be known of it.

    A pod's host name is the pod's own, so two pods of one machine would pass for two machines,
    and so would /etc/machine-id, which is that of the image. The id of the kernel's start is not:
    it changes with each start of the machine, but so does every daemon on it.
    """
    if host_id:
        return Machine(host_id)
    name = socket.gethostname()
    if not environment.get(_POD_VARIABLE):
        return Machine(name)
    how = "set COSCO_SHUFFLED_HOST_ID from spec.nodeName, or give --host-id"
    try:
        start = boot_id.read_text().strip().replace("-", "")
    except OSError:
        start = ""
    if not start:
        doubt = f"this is a pod, and which machine it is on is not known: {how}"
        return Machine(name, doubt)
    doubt = f"this is a pod: its machine is known by the start of its kernel alone; {how}"
    return Machine(f"boot-{start[:_SHOWN_CHARACTERS]}", doubt)
