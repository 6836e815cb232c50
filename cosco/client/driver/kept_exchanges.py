"""What an application and its exchanges know of each other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cosco.client.access.service_connection import Connection
from cosco.client.driver.driver import RecomputeCallback
from cosco.client.exchange_spans import recompute_span
from cosco.client.live_object import LiveObject
from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.rpc.scope import Scope
from cosco.errors import ExchangeExists, InvalidArgument
from cosco.protocol.api_limits import shown, shown_value
from cosco.protocol.records import ExchangeInfo


@dataclass(frozen=True, slots=True)
class _Kept:
    """What works for an exchange, also once its object was dropped."""

    callback: RecomputeCallback | None
    scope: Scope
    metadata: MetadataClient
    trace: str


class KeptExchanges:
    """The open exchanges of an application. The threads of its driver use it, and so it must not
    hold the application, nor the objects of its exchanges."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: Their ids, those included that are being made.
        self.names: set[str] = set()
        self._kept: dict[int, _Kept] = {}

    @contextmanager
    def admitting(self, shuffle_id: str) -> Iterator[None]:
        """Have an id for the exchange that is made within.

        The service cannot tell a second exchange of this id from a repeated call, as all exchanges
        of an application have its owner.

        Raises: ExchangeExists.
        """
        with self._lock:
            if shuffle_id in self.names:
                raise ExchangeExists(
                    f"exchange {shown(shuffle_id)} exists: this application has made it; ids are "
                    "used once: take another",
                    shuffle_id=shuffle_id,
                )
            self.names.add(shuffle_id)
        try:
            yield
        except BaseException:
            self._forget_name(shuffle_id)
            raise

    def add(self, number: int, kept: _Kept) -> None:
        """Keep an exchange from now on."""
        with self._lock:
            self._kept[number] = kept

    def remove(self, number: int) -> None:
        """Keep an exchange no longer; harmless to repeat."""
        with self._lock:
            kept = self._kept.pop(number, None)
        if kept is not None:
            self._forget_name(kept.scope.shuffle_id)

    def call(self, number: int, mappers: list[int], reason: str) -> None:
        """Call mappers of an exchange back, unless it was closed meanwhile."""
        kept = self._kept.get(number)
        if kept is None or kept.callback is None:
            return
        shuffle_id = kept.scope.shuffle_id
        try:
            with recompute_span(shuffle_id, number, kept.trace, mappers, reason):
                kept.callback(mappers, reason)
        except BaseException as error:  # whoever logs it knows the application alone
            error.add_note(f"It was called back for exchange {shown(shuffle_id)}.")
            raise

    def end(self) -> None:
        """Close what is left: the application has ended."""
        for number, kept in list(self._kept.items()):
            self.remove(number)
            kept.scope.close()
            kept.metadata.close()

    def _forget_name(self, shuffle_id: str) -> None:
        with self._lock:
            self.names.discard(shuffle_id)


class KeptExchange:
    """An exchange's place in its application: to its object what a `Driver` is to that of another
    one. The application polls for it, so that nothing is to be started here."""

    #: Who owns it now is asked when it is closed.
    is_replaced = False

    def __init__(self, exchanges: KeptExchanges, number: int, kept: _Kept) -> None:
        self._exchanges = exchanges
        self._number = number
        self._kept = kept

    def start(self) -> None:
        """Have its mappers called back."""
        self._exchanges.add(self._number, self._kept)

    def close(self) -> None:
        """Have its mappers called back no longer."""
        self._exchanges.remove(self._number)

    def let_go(self) -> None:
        """Leave it to the application, with its callback."""


class ExchangeOwner(LiveObject):
    """An application, as its exchanges see it."""

    application_id: str
    _owner: bytes
    _lease_s: float
    _exchanges: KeptExchanges

    def _place(
        self,
        info: ExchangeInfo,
        callback: RecomputeCallback | None,
        scope: Scope,
        metadata: MetadataClient,
    ) -> KeptExchange:
        """Return the place of an exchange that was made, which `start` gives it."""
        kept = _Kept(callback, scope, metadata, info.spec.trace)
        return KeptExchange(self._exchanges, info.number, kept)


def checked_owner(
    application: object, shuffle_id: str, lease_s: float | None, metadata: Connection | str | None
) -> ExchangeOwner:
    """Return the application of an exchange that is to be made with these options.

    Raises: InvalidArgument, ClientClosed.
    """
    if not isinstance(application, ExchangeOwner):
        raise InvalidArgument(
            f"application is {shown_value(application)}, it must be a CoscoApplication",
            shuffle_id=shuffle_id,
        )
    application._scope.check()
    own = application._connection
    is_same = metadata is None or (
        metadata.whole == own.whole if isinstance(metadata, Connection) else metadata == str(own)
    )
    for option, value, its, is_its in (
        ("lease_s", lease_s, application._lease_s, lease_s in (None, application._lease_s)),
        ("metadata", metadata, str(own) if isinstance(metadata, str) else own, is_same),
    ):
        if not is_its:
            raise InvalidArgument(
                f"{option} is {shown_value(value)}, and {its!r} of application "
                f"{shown(application.application_id)}: an exchange has that of its application; "
                "leave it out",
                shuffle_id=shuffle_id,
            )
    return application
