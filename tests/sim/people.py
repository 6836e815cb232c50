"""Somebody who looks after the cluster by the commands: each of their calls is made until it is
answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cosco.client.rpc.scope import Scope, Unreachable
from cosco.client.rpc.transport import Endpoint
from cosco.errors import CoscoError
from cosco.protocol import wire
from cosco.protocol.wire import mpb

from . import threads
from .programs import METADATA_ADDRESS
from .world import World

HOST = "10.0.2.1"
_TIMEOUT_S = 5.0
#: As long as a daemon that is gone may be thought to live, and more.
_TRIES = 200


def _ask(method: str, request: Any) -> str:
    """Make a call until it is answered. Returns the error; empty for none."""
    scope = Scope("an operator", "")
    with Endpoint(METADATA_ADDRESS) as endpoint:
        while True:
            path = f"/{wire.METADATA_SERVICE}/{method}"
            try:
                endpoint.unary(path, request.SerializeToString(), _TIMEOUT_S, scope)
            except Unreachable:
                threads.sleep(0.5)
            except CoscoError as error:
                return str(error)
            else:
                return ""


def _spawn(world: World, work: Callable[[], None]) -> None:
    def main() -> None:
        threads.Thread(target=work, name="main").start()

    world.spawn("operator", HOST, main)


def forget(world: World, store_id: str) -> None:
    """Say that a store is gone, once nobody is thought to serve it."""

    def work() -> None:
        for _ in range(_TRIES):
            error = _ask("ForgetStore", mpb.ForgetStoreRequest(store_id=store_id))
            if not error:
                world.trace(f"{store_id} is forgotten")
                world.count("stores forgotten")
                world.forgotten_stores.add(store_id)
            if "is served by" not in error:
                return  # or nobody has ever had anything there
            threads.sleep(1.0)
        world.problem(f"{store_id} is thought to be served: {error}")

    _spawn(world, work)


def drain_for(world: World, address: str, seconds: float, ended: Callable[[], None]) -> None:
    """Drain a daemon and take that back; `ended` is called if it is too late for that."""

    def work() -> None:
        if _ask("DrainDaemon", mpb.DrainDaemonRequest(daemon=address)):
            world.later(0, ended)
            return
        threads.sleep(seconds)
        if _ask("UndrainDaemon", mpb.UndrainDaemonRequest(daemon=address)):
            world.later(0, ended)
        else:
            world.trace(f"the drain of {address} is taken back")
            world.count("drains taken back")

    _spawn(world, work)


def close(world: World, shuffle_id: str) -> None:
    """Close an exchange amid its work."""

    def work() -> None:
        error = _ask("CloseExchange", mpb.CloseExchangeRequest(shuffle_id=shuffle_id))
        if error:
            world.problem(f"an operator could not close the exchange: {error}")
        world.count("exchanges closed by an operator")

    _spawn(world, work)
