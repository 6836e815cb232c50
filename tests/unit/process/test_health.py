"""Health over HTTP and gRPC, in front of a service that is what the test says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from cosco.process import health
from cosco.process.health import Health
from cosco.process.http_endpoint import Request

REQUEST = Request("/", "", lambda _: None)
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 20))


async def get(made: Health, path: str) -> tuple[int, str]:
    answer = await asyncio.to_thread(made.resources()[path], REQUEST)
    return answer.status, answer.body.decode()


def test_over_http() -> None:
    async def test() -> None:
        reasons: list[str] = []
        made = Health(lambda: reasons)
        assert await get(made, "/healthz") == (200, "alive\n")
        assert await get(made, "/readyz") == (200, "ready\n")
        reasons += ["one", "two"]
        assert await get(made, "/healthz") == (200, "alive\n")
        assert await get(made, "/readyz") == (503, "one\ntwo\n")

    run(test)


def test_readiness_is_asked_in_the_event_loop() -> None:
    async def test() -> None:
        threads: list[threading.Thread] = []

        def readiness() -> list[str]:
            threads.append(threading.current_thread())
            return []

        await get(Health(readiness), "/readyz")
        assert threads == [threading.current_thread()]

    run(test)


def test_a_loop_that_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "ALIVE_S", 0.05)

    async def test() -> None:
        made = Health(list)
        found: list[int] = []

        def ask() -> None:
            resources = made.resources()
            found.extend(resources[path](REQUEST).status for path in ("/healthz", "/readyz"))

        asking = threading.Thread(target=ask)
        asking.start()
        asking.join()  # in the loop, which does nothing else meanwhile
        assert found == [503, 503]
        assert (await get(made, "/healthz"))[0] == 200

    run(test)


def test_a_loop_that_has_ended() -> None:
    made: list[Health] = []

    async def test() -> None:
        made.append(Health(list))

    run(test)
    assert made[0].resources()["/healthz"](REQUEST).status == 503


# --- over gRPC ---------------------------------------------------------------------------------


def official_messages() -> tuple[Any, Any]:
    """The messages by their own names, as grpc/health/v1/health.proto defines them."""
    file = descriptor_pb2.FileDescriptorProto(
        name="health.proto", package="grpc.health.v1", syntax="proto3"
    )
    field = descriptor_pb2.FieldDescriptorProto
    request = file.message_type.add(name="HealthCheckRequest")
    request.field.add(name="service", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    response = file.message_type.add(name="HealthCheckResponse")
    kinds = response.enum_type.add(name="ServingStatus")
    for number, name in enumerate(("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")):
        kinds.value.add(name=name, number=number)
    response.field.add(
        name="status", number=1, type=field.TYPE_ENUM, label=field.LABEL_OPTIONAL,
        type_name=".grpc.health.v1.HealthCheckResponse.ServingStatus",
    )  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = (pool.FindMessageTypeByName(f"grpc.health.v1.{m.name}") for m in file.message_type)
    return tuple(map(message_factory.GetMessageClass, found))  # type: ignore[return-value]


HealthCheckRequest, HealthCheckResponse = official_messages()


class Client:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        kinds = {
            "request_serializer": HealthCheckRequest.SerializeToString,
            "response_deserializer": HealthCheckResponse.FromString,
        }
        self._check: Any = channel.unary_unary("/grpc.health.v1.Health/Check", **kinds)
        self._watch: Any = channel.unary_stream("/grpc.health.v1.Health/Watch", **kinds)

    async def check(self, service: str = "") -> int:
        return int((await self._check(HealthCheckRequest(service=service))).status)

    async def watch(self, service: str = "") -> AsyncIterator[int]:
        async for answer in self._watch(HealthCheckRequest(service=service)):
            yield int(answer.status)


@asynccontextmanager
async def serving(made: Health) -> AsyncIterator[Client]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((made.handler("a.Service"),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Client(channel)
    await server.stop(0)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "WATCH_S", 0.01)


def test_check() -> None:
    async def test() -> None:
        reasons: list[str] = []
        made = Health(lambda: reasons)
        async with serving(made) as client:
            assert await client.check() == SERVING
            assert await client.check("a.Service") == SERVING
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await client.check("another.Service")
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND
            reasons.append("it drains")
            assert await client.check() == NOT_SERVING
            reasons.clear()
            made.stop()
            assert await client.check() == NOT_SERVING

    run(test)


def test_watch_tells_of_each_change_and_ends_with_the_service() -> None:
    async def test() -> None:
        reasons: list[str] = []
        made = Health(lambda: reasons)
        async with serving(made) as client:
            told = client.watch("a.Service")
            assert await anext(told) == SERVING
            reasons.append("it drains")
            assert await anext(told) == NOT_SERVING
            reasons.clear()
            assert await anext(told) == SERVING
            made.stop()
            assert [status async for status in told] == [NOT_SERVING]

    run(test)


def test_watch_of_what_is_not_there() -> None:
    async def test() -> None:
        made = Health(list)
        async with serving(made) as client:
            assert await anext(client.watch("another.Service")) == SERVICE_UNKNOWN

    run(test)


def test_watches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "MAX_WATCHES", 2)

    async def test() -> None:
        made = Health(list)
        async with serving(made) as client:
            held = [client.watch() for _ in range(2)]
            assert [await anext(one) for one in held] == [SERVING, SERVING]
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await anext(client.watch())
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            made.stop()

    run(test)
