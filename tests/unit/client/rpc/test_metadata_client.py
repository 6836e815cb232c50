"""What a metadata service answers is not trusted."""

from __future__ import annotations

import pytest

from cosco.client.rpc.metadata_client import MetadataClient
from cosco.client.rpc.scope import Scope
from cosco.client.rpc.transport import Endpoint
from cosco.errors import ServiceUnavailable


def test_an_answer_that_is_no_message_is_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Endpoint, "unary", lambda *arguments: b"\xff\xff")
    metadata = MetadataClient("127.0.0.1:1", Scope("a test", "x"), 1.0)
    with pytest.raises(ServiceUnavailable, match="nonsense") as caught:
        metadata.progress(1)
    assert caught.value.shuffle_id == "x"
    metadata.close()
