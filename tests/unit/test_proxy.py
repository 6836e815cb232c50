"""The tests' own proxy: it leaves nothing open, whatever came while it was closed."""

from __future__ import annotations

import gc
import socket
import threading
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from support.proxy import Proxy

BOUND_S = 10.0


def noticed(call: Callable[..., object], asked: threading.Event, *arguments: object) -> object:
    """What asks its loop for something is told when it has."""
    try:
        return call(*arguments)
    finally:
        asked.set()


def test_connections_accepted_as_it_closes_are_closed() -> None:
    proxy = Proxy("127.0.0.1:1")
    host, port = proxy.address.split(":")
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        go_on.wait(BOUND_S)

    # In one turn of its loop: the order to close, and connections to accept.
    loop = proxy._loop
    loop.call_soon_threadsafe(hold)
    assert held.wait(BOUND_S)
    asked = threading.Event()
    loop.call_soon_threadsafe = partial(  # type: ignore[assignment]
        noticed, loop.call_soon_threadsafe, asked
    )
    closing = threading.Thread(target=proxy.close)
    with ExitStack() as clients, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ResourceWarning)
        for _ in range(2):
            clients.enter_context(socket.create_connection((host, int(port)), BOUND_S))
        closing.start()
        assert asked.wait(BOUND_S)
        go_on.set()
        closing.join(BOUND_S)
        assert not closing.is_alive()
        del proxy, loop, closing
        gc.collect()
    assert [str(warning.message) for warning in said] == []
