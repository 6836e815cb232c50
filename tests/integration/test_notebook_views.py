"""What notebooks show of live objects, and the bar of how far an exchange is."""

from __future__ import annotations

import re
import time
from html import unescape

import pytest
from support.exchanges import until

from cosco import CoscoApplication, CoscoExchange, CoscoWriter, LocalCluster
from cosco.errors import ClientClosed
from cosco.observe import fetch_status


def text_of(html: str) -> str:
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html)))


def test_an_exchange_shows_how_far_it_is(metadata: str, name: str) -> None:
    with CoscoExchange(name, 4, replicas=2, mappers=3, metadata=metadata) as exchange:
        assert "0 of 3 committed" in text_of(exchange._repr_html_())
        with exchange.handle().writer(0) as writer:
            writer.collect_batch([0, 3, 3], [b"a" * 10, b"b" * 100, b"c" * 1000])
        shown = exchange._repr_html_()
        assert "1 of 3 committed" in text_of(shown)
        assert "2 of 2" in text_of(shown)
        assert shown.count("<rect") == 4
    shown = exchange._repr_html_()
    assert "closed" in text_of(shown)
    assert "committed" not in text_of(shown)


def test_an_application_and_a_cluster_show_what_they_have(cluster: LocalCluster) -> None:
    with CoscoApplication("etl<b>", metadata=cluster.metadata) as application:
        exchange = application.exchange(2, replicas=1)
        shown = application._repr_html_()
        assert exchange.shuffle_id in text_of(shown)
        assert "<b>" not in shown
    shown = text_of(cluster._repr_html_())
    assert all(daemon.address in shown for daemon in cluster.daemons)
    assert "serving" in text_of(fetch_status(cluster.metadata)._repr_html_())


def test_a_cell_does_not_hang_since_the_service_is_away() -> None:
    with LocalCluster(1, memory="16MiB") as cluster:
        exchange = CoscoExchange("x", 4, replicas=1, metadata=cluster.metadata)
        cluster.metadata_service.kill()
        began = time.monotonic()
        assert "metadata service" in text_of(exchange._repr_html_())
        assert "metadata service" in text_of(cluster._repr_html_())
        assert time.monotonic() - began < 30  # of the 300 s that calls are repeated for
        cluster.metadata_service.restart()
        until(lambda: "committed" in exchange._repr_html_(), 30, "the service's return")
        exchange.close()


def test_a_bar_shows_how_many_mappers_have_committed(
    metadata: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with CoscoExchange(name, 2, replicas=1, metadata=metadata) as exchange:
        with exchange.progress_bar(2):
            for mapper in range(2):
                with CoscoWriter(name, mapper, metadata=metadata) as writer:
                    writer.collect(0, b"row")
        said = capsys.readouterr().err
        assert name in said
        assert "2/2" in said
        assert "2 rows" in said
        with pytest.raises(ZeroDivisionError), exchange.progress_bar():  # what is in it comes out
            raise ZeroDivisionError
        assert "2 mappers" in capsys.readouterr().err
    with pytest.raises(ClientClosed):
        exchange.progress_bar()
