"""The routes that change something, each as the command of that name does."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import unquote

from fastapi import APIRouter, Depends, Path, Response

from cosco.metadata.http import models
from cosco.metadata.http.calls import Call, Caller_, as_json
from cosco.metadata.http.problems import NothingThere
from cosco.metadata.http.routes.exchange_routes import ExchangeId
from cosco.metadata.service.guard import Visit
from cosco.protocol.api_limits import shown
from cosco.protocol.wire import mpb

router: Final = APIRouter(prefix="/api/v1", tags=["actions"])


async def daemon_address(
    address: Annotated[str, Path(description="host:port, as `daemons` has it")],
) -> str:
    """Return the address that a path names."""
    return unquote(address)


async def store(
    store_id: Annotated[str, Path(description="as `daemons` has it, with a slash as %2F")],
) -> str:
    """Return the id of the store that a path names."""
    return unquote(store_id)


Address = Annotated[str, Depends(daemon_address)]
StoreId = Annotated[str, Depends(store)]


@router.post(
    "/daemons/{address}/drain",
    response_model=models.Drained,
    summary="move everything away from a daemon, and give it nothing more",
)
async def drain(call: Caller_, address: Address, _: models.Empty | None = None) -> Response:
    request = mpb.DrainDaemonRequest(daemon=address)

    async def act(_: Visit) -> models.Drained:
        _check_there(call, address)
        await call.inside.handlers.drain_daemon(request)
        return models.Drained(address=address)

    return as_json(await call.answer("DrainDaemon", request, act))


@router.post(
    "/daemons/{address}/undrain",
    response_model=models.Undrained,
    summary="give a daemon work again",
)
async def undrain(call: Caller_, address: Address, _: models.Empty | None = None) -> Response:
    request = mpb.UndrainDaemonRequest(daemon=address)

    async def act(_: Visit) -> models.Undrained:
        _check_there(call, address)
        reply = await call.inside.handlers.undrain_daemon(request)
        return models.Undrained(address=address, was_draining=reply.was_draining)

    return as_json(await call.answer("UndrainDaemon", request, act))


@router.post(
    "/exchanges/{shuffle_id}/close",
    response_model=models.Closed,
    summary="close an exchange, whoever its driver is",
)
async def close(call: Caller_, shuffle_id: ExchangeId, _: models.Empty | None = None) -> Response:
    request = mpb.CloseExchangeRequest(shuffle_id=shuffle_id)

    async def act(visit: Visit) -> models.Closed:
        reply = await call.inside.handlers.close_exchange(request, visit)
        return models.Closed(was_open=reply.was_open)

    return as_json(await call.answer("CloseExchange", request, act))


@router.post(
    "/stores/{store_id}/forget",
    response_model=models.ForgottenStore,
    summary="wait no more for a store that is gone for good: its rows are lost",
)
async def forget(call: Caller_, store_id: StoreId, _: models.Empty | None = None) -> Response:
    request = mpb.ForgetStoreRequest(store_id=store_id)

    async def act(_: Visit) -> models.ForgottenStore:
        found = await call.inside.handlers.forget_store(request)
        return models.ForgottenStore(
            closed=found.closed,
            ranges=found.ranges,
            doubtful=found.doubtful,
            exchanges=found.exchanges,
        )

    return as_json(await call.answer("ForgetStore", request, act))


def _check_there(call: Call, address: str) -> None:
    if not call.inside.state.view.has_daemon(address):
        raise NothingThere(
            f"there is no live shuffle daemon at {shown(address)}: name one that `daemons` lists, "
            "as host:port"
        )
