"""One call of a store in HDFS, in a thread that may hang: how it goes, and how it is given up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from cosco.dfs.hdfs.hdfs_errors import as_os_error

T = TypeVar("T")


class GivenUp(BaseException):
    """Raised in a thread whose call nobody waits for any more."""


class HdfsCall:
    """The steps of one call, each of which asks HDFS once.

    Made by whoever waits for it, and run in a thread. A step that hangs cannot be ended; but no
    other one follows it, and the caller's memory is not touched, once the call was given up.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._given_up = False
        self._answered: float | None = None

    def run(self, function: Callable[[], T]) -> T | None:
        """Make the call in this thread.

        Returns: what it returns, or None if it was given up.
        """
        self._answered = time.monotonic()
        try:
            return function()
        except BaseException:
            if self._given_up:
                return None
            raise

    def step(self, function: Callable[..., T], *args: object) -> T:
        """Ask HDFS; raises OSError for whatever goes wrong, and GivenUp."""
        if self._given_up:
            raise GivenUp
        try:
            result = function(*args)
        except BaseException as error:  # a panic of Rust is no Exception
            raise as_os_error(error, self.path) from error
        self._answered = time.monotonic()
        return result

    @contextmanager
    def memory(self) -> Iterator[None]:
        """Keep the caller's memory for this block; raises GivenUp if it is the caller's again."""
        with self._lock:
            if self._given_up:
                raise GivenUp
            yield

    def give_up(self) -> None:
        """Have no step follow the one under way; the caller's memory is no longer in use then."""
        with self._lock:
            self._given_up = True

    @property
    def began(self) -> bool:
        """Whether a thread has begun it."""
        return self._answered is not None

    @property
    def silent_s(self) -> float:
        """For how long it has not been answered; 0 before it began."""
        return 0.0 if self._answered is None else time.monotonic() - self._answered
