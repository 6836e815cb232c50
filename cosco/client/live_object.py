"""What the public classes of the client have in common: they live in one process, and end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, Self

from cosco.client.argument_checks import metadata_address, seconds
from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.rpc.scope import Scope
from cosco.errors import NotPicklable


class LiveObject(ABC):
    """Base of the public classes: a scope, a metadata service, an end; it cannot be pickled."""

    def _connect(
        self,
        shuffle_id: str,
        metadata: str | None,
        service_timeout_s: float,
        on_inherited: Callable[[], None] | None = None,
    ) -> None:
        """Make the scope and the client of the metadata service.

        Raises: InvalidArgument.
        """
        self._service_timeout_s = seconds("service_timeout_s", service_timeout_s, 0.0, shuffle_id)
        self._address = metadata_address(metadata)
        self._scope = Scope(f"a {type(self).__name__}", shuffle_id, on_inherited)
        self._metadata = MetadataClient(self._address, self._scope, self._service_timeout_s)

    @contextmanager
    def _opening(self) -> Iterator[None]:
        """Give the connection up if what is done within fails."""
        try:
            yield
        except BaseException:
            self._metadata.close()
            raise

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
            f"a {type(self).__name__} cannot be pickled or copied: pass the shuffle_id and the "
            "metadata address instead, and make a new one there"
        )
