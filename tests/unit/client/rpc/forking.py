"""Forks a process that is in the middle of calls; run by test_transport.py.

`forking.py serve` is the server, `forking.py FORKS` the client: a unary long poll, a stream
and short calls run in threads while it forks. Each child makes calls of its own. Prints
"ok" when no child failed or hung, and the parent's calls went on.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from cosco.client.rpc.channel import Manner
from cosco.client.rpc.scope import Scope, Unreachable, retrying
from cosco.client.rpc.transport import Endpoint, _channels
from cosco.mechanics import NATIVE

CHILD_TIMEOUT_S = 20.0
MANNER: Manner[bytes] = Manner(b"".join, batch=1, idle_s=60.0, is_over=lambda: False)


def serve() -> None:
    import grpc.aio

    async def echo(request: bytes, context: Any) -> bytes:
        if request == b"wait":
            await asyncio.sleep(60)
        return request

    async def count(requests: Any, context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request

    async def main() -> None:
        server = grpc.aio.server()
        handlers: dict[str, Any] = {
            "Echo": grpc.unary_unary_rpc_method_handler(echo),
            "Stream": grpc.stream_stream_rpc_method_handler(count),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t", handlers),))
        print(server.add_insecure_port("127.0.0.1:0"), flush=True)
        await server.start()
        await server.wait_for_termination()

    asyncio.run(main())


def talk(address: str, scope: Scope) -> None:
    """A short call, and a stream of a few messages."""
    with Endpoint(address) as endpoint:
        reply = retrying(scope, lambda: 10.0, lambda: endpoint.unary("/t/Echo", b"x", 10.0, scope))
        assert reply == b"x"
        sent = [b"y" * 100_000] * 20
        call = endpoint.conversation("/t/Stream", MANNER, scope)
        for message in sent:
            call.say(message)
        call.end()
        assert list(call) == sent


def parents_calls(address: str, scope: Scope, done: Counter[str]) -> list[threading.Thread]:
    endpoint = Endpoint(address)

    def wait() -> None:
        while True:
            endpoint.unary("/t/Echo", b"wait", 60.0, scope)

    def short() -> None:
        while True:
            endpoint.unary("/t/Echo", b"x", 10.0, scope)
            done["short"] += 1

    def stream() -> None:
        call = endpoint.conversation("/t/Stream", MANNER, scope)
        call.say(b"z" * 50_000)
        for message in call:
            call.say(message)
            done["stream"] += 1

    def forever(work: Any) -> None:
        while True:
            try:
                work()
            except Unreachable as error:
                assert error.for_fork, error
                done["cancelled"] += 1

    threads = [
        threading.Thread(target=forever, args=(work,), daemon=True)
        for work in (wait, wait, short, stream)
    ]
    for thread in threads:
        thread.start()
    return threads


def child_ended(pid: int) -> bool:
    deadline = time.monotonic() + CHILD_TIMEOUT_S
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


def run(forks: int) -> None:
    parent = os.getpid()
    server = subprocess.Popen(
        [sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        address = f"127.0.0.1:{server.stdout.readline().strip()}"
        done: Counter[str] = Counter()
        threads = parents_calls(address, Scope("a test", "x"), done)
        longest_s = 0.0
        for i in range(forks):
            before = done.copy()
            while done["short"] == before["short"] or done["stream"] == before["stream"]:
                time.sleep(0.001)  # every thread is in a call again
            started = time.monotonic()
            pid = os.fork()
            if not pid:
                status = 1
                try:
                    assert not _channels._table
                    talk(address, Scope("a child", "x"))
                    status = 0
                finally:
                    if i % 2 or status:
                        os._exit(status)
                    sys.exit(0)  # also with the interpreter's own ending
            longest_s = max(longest_s, time.monotonic() - started)
            assert child_ended(pid), f"child {i} failed or hung"
        assert longest_s < 5, longest_s
        assert all(thread.is_alive() for thread in threads)
        # gRPC's calls do not outlast a fork, and are made again.
        assert done["cancelled"] >= forks if NATIVE is None else not done["cancelled"], done
        print("ok", f"longest fork {longest_s * 1000:.0f} ms", dict(done), flush=True)
    finally:
        if os.getpid() == parent:
            server.kill()
            server.wait()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        run(int(sys.argv[1]))
        os._exit(0)  # its threads are in the middle of calls
