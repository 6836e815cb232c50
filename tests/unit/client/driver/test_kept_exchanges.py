"""What an application keeps of its exchanges."""

from __future__ import annotations

import pytest

from cosco.client.driver.kept_exchanges import KeptExchange, KeptExchanges, _Kept
from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.rpc.scope import Scope


def test_what_a_callback_raises_says_of_which_exchange_it_is() -> None:
    """It is logged by the driver of the application, which has hundreds."""

    def fail(mappers: list[int], reason: str) -> None:
        raise ValueError(reason)

    exchanges = KeptExchanges()
    scope = Scope("a test", "etl-1.7")
    metadata = MetadataClient("127.0.0.1:1", scope, 1.0)
    KeptExchange(exchanges, 7, _Kept(fail, scope, metadata, "")).start()
    with pytest.raises(ValueError, match="rows are lost") as caught:
        exchanges.call(7, [1], "rows are lost")
    assert caught.value.__notes__ == ["It was called back for exchange 'etl-1.7'."]
    exchanges.end()
