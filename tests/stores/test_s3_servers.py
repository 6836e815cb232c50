"""What every store promises, on servers that speak S3."""

from __future__ import annotations

import pytest
from support.s3_servers import S3Server

from cosco.dfs import open_store
from cosco.dfs.testing import MakeStore, StoreConformance


class TestVersitygw(StoreConformance):
    """A gateway that keeps to what S3 says."""

    @pytest.fixture
    def make_store(self, versity_server: S3Server) -> MakeStore:
        url = versity_server.url()
        return lambda observer: open_store(url, threads=3, observer=observer)


#: It answers a range with a status that says that there is none; only one of a whole object can
#: be read all the same.
_NO_RANGES = "rclone answers a range with status 200, which obstore refuses"


class TestRclone(StoreConformance):
    """`rclone serve s3`, which is skipped where it gets the protocol wrong."""

    @pytest.fixture
    def make_store(self, rclone_server: S3Server) -> MakeStore:
        url = rclone_server.url()
        return lambda observer: open_store(url, threads=3, observer=observer)

    @pytest.mark.skip(reason="rclone ignores If-None-Match")
    def test_all_who_open_one_place_agree_on_its_id(self, make_store: MakeStore) -> None: ...

    @pytest.mark.skip(reason=_NO_RANGES)
    def test_a_large_file(self) -> None: ...  # type: ignore[override]

    @pytest.mark.skip(reason=_NO_RANGES)
    def test_reads_start_and_end_anywhere(self) -> None: ...  # type: ignore[override]

    @pytest.mark.skip(reason=_NO_RANGES)
    def test_reads_end_with_the_file(self) -> None: ...  # type: ignore[override]

    @pytest.mark.skip(reason=_NO_RANGES)
    def test_reads_into_memory_fill_it_in_order(self) -> None: ...  # type: ignore[override]

    @pytest.mark.skip(reason=_NO_RANGES)
    def test_access_is_to_one_file_if_there_is_any(self) -> None: ...  # type: ignore[override]

    @pytest.mark.skip(reason=_NO_RANGES)
    def test_odd_names(self) -> None: ...  # type: ignore[override]

    @pytest.mark.skip(reason=_NO_RANGES)
    def test_the_observer_is_told_of_reads_and_writes(self) -> None: ...  # type: ignore[override]
