"""Whether what decides is used by one thread alone: looked at where `COSCO_CHECK=threads` asks.

A service decides in the thread of its event loop. Frames, control calls, heartbeats, timers and
the ends of IO enter there, each by a plain call that does not wait. So what decides needs no
locks, and another thread that entered would find it half changed. With the check on, whatever of it
another thread reads or sets raises WrongThread there, and is logged. Without it nothing is
wrapped, and nothing costs anything. What is native looks by itself, always.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any, Final

log = logging.getLogger(__name__)

#: What a process is to check, with commas between: `threads`.
ENVIRONMENT: Final = "COSCO_CHECK"
_THREADS: Final = "threads"


class WrongThread(AssertionError):
    """A thread has used what is another one's."""


class _Deciding:
    """Which thread decides, and what is held to it."""

    thread: threading.Thread | None = None
    #: A thread that makes what decides, for the other one.
    makes: threading.Thread | None = None

    def __init__(self) -> None:
        self.classes: set[type] = set()

    def check(self, owner: type, name: str) -> None:
        """Raise WrongThread unless this thread may use an attribute of a class."""
        here = threading.current_thread()
        if here in (self.thread, self.makes) or name.startswith("__"):
            return
        decides = self.thread.name if self.thread is not None else "no thread"
        text = f"{owner.__name__}.{name} is used by thread {here.name}, and {decides} decides"
        log.critical("wrong_thread: %s", text, stack_info=True)
        raise WrongThread(text)


_DECIDING: Final = _Deciding()


def hold_to_this_thread(*packages: str) -> None:
    """Have all that is in these packages refuse other threads than this one, if that is asked for.

    That is: the classes that their modules have by now, but for records, which do not change.
    """
    if _THREADS not in os.environ.get(ENVIRONMENT, "").split(","):
        return
    _DECIDING.thread = threading.current_thread()
    log.warning("%s=%s: what decides is held to this thread, slowly", ENVIRONMENT, _THREADS)
    for module in list(sys.modules.values()):
        if not any(f"{module.__name__}.".startswith(f"{package}.") for package in packages):
            continue
        for found in list(vars(module).values()):
            if isinstance(found, type) and found.__module__ == module.__name__:
                _hold(found)


@contextmanager
def made_for_it() -> Iterator[None]:
    """Let this thread use what decides, while it makes that for the thread that will have it."""
    _DECIDING.makes = threading.current_thread()
    try:
        yield
    finally:
        _DECIDING.makes = None


def _hold(owner: Any) -> None:
    if owner in _DECIDING.classes or _is_record(owner):
        return
    _DECIDING.classes.add(owner)
    read, write = owner.__getattribute__, owner.__setattr__

    def checked_read(self: object, name: str) -> Any:
        _DECIDING.check(owner, name)
        return read(self, name)

    def checked_write(self: object, name: str, value: object) -> None:
        _DECIDING.check(owner, name)
        write(self, name, value)

    owner.__getattribute__ = checked_read
    owner.__setattr__ = checked_write


def _is_record(found: Any) -> bool:
    if issubclass(found, (tuple, Enum, BaseException)) or getattr(found, "_is_protocol", False):
        return True
    parameters = getattr(found, "__dataclass_params__", None)
    return parameters is not None and parameters.frozen
