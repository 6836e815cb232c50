"""What the public classes of the client have in common: they live in one process, and end."""

from __future__ import annotations

import warnings
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, Self

from cosco.client.access.service_connection import Connection, connection_to
from cosco.client.argument_checks import seconds
from cosco.client.rpc.in_use import IN_USE, Use
from cosco.client.rpc.leftovers import LEFTOVERS
from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.rpc.scope import Scope
from cosco.errors import NotPicklable


class LiveObject(ABC):
    """Base of the public classes: a scope, a metadata service, an end; it cannot be pickled.

    Nothing that works for such an object, and no thread, holds it, so that it is collected when
    nobody uses it. What is left of it then is ended by a thread; see `cosco.client.rpc.leftovers`.
    """

    # What ends what works for it, without it; None while it is not open.
    _leftover: Callable[[], None] | None = None
    _use: Use | None = None
    _is_missed = True  # whether it should not be dropped while it is open
    # What goes to another process in its place.
    _passed_instead = (
        "pass the shuffle_id and the metadata address instead, and make a new one there"
    )

    def _connect(
        self,
        shuffle_id: str,
        metadata: Connection | str | None,
        service_timeout_s: float,
        on_inherited: Callable[[], None] | None = None,
    ) -> None:
        """Make the scope and the client of the metadata service.

        on_inherited: a method of this object.

        Raises: InvalidArgument.
        """
        self._service_timeout_s = seconds("service_timeout_s", service_timeout_s, 0.0, shuffle_id)
        self._connection = connection_to(metadata)
        self._scope = Scope(
            f"a {type(self).__name__}", shuffle_id, on_inherited and weakly(on_inherited)
        )
        self._metadata = MetadataClient(self._connection, self._scope, self._service_timeout_s)

    @contextmanager
    def _opening(self) -> Iterator[None]:
        """Give the connection up if what is done within fails."""
        try:
            yield
        except BaseException:
            self._scope.close()
            self._metadata.close()
            raise

    def _begin_life(self, leftover: Callable[[], None], *, is_user: bool) -> None:
        """Have `leftover` called if the object is dropped before its end.

        leftover: must not hold the object. is_user: as long as the object lives this process uses
        the exchange, whose lease is kept then.
        """
        self._leftover = leftover
        if is_user:
            self._use = IN_USE.add(self._scope.shuffle_id, self)

    def _end_life(self) -> None:
        """Nothing works for the object any more."""
        self._leftover = None
        use, self._use = self._use, None
        if use is not None:
            IN_USE.remove(use)

    def _finish(self, end: Callable[[], None]) -> None:
        """Have `end` end what works for the object; if it is interrupted, soon by a thread."""
        try:
            end()
        except Exception:
            raise
        except BaseException:
            self._end_life()
            LEFTOVERS.add(end)
            raise
        self._end_life()

    def __del__(self) -> None:
        leftover = self._leftover
        if leftover is None or LEFTOVERS.is_over or self._scope.inherited:
            return
        self._leftover = None
        shown = repr(self)  # before it is ended, by a thread that may be quick
        LEFTOVERS.add(leftover)
        if self._is_missed:
            warnings.warn(
                f"unclosed {shown}: use it in a with block, or close it",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def __repr__(self) -> str:
        scope = getattr(self, "_scope", None)
        if scope is None:
            return f"<{type(self).__name__}>"
        state = "closed" if scope.is_closed else "open"
        return f"<{type(self).__name__} of {scope.shuffle_id!r}, {state}>"

    @abstractmethod
    def close(self) -> object:
        """End the object; harmless to repeat."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if not self._scope.inherited:  # a forked child leaves the block: it is its parent's
            self.close()

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise NotPicklable(
            f"a {type(self).__name__} cannot be pickled or copied: {self._passed_instead}"
        )


def weakly(method: Callable[..., None]) -> Callable[..., None]:
    """Return what calls a bound method while its object lives, and does not keep it alive."""
    weak = weakref.WeakMethod(method)

    def call(*arguments: Any) -> None:
        alive = weak()
        if alive is not None:
            alive(*arguments)

    return call
