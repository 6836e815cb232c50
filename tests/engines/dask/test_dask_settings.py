"""What `enable` is told of the metadata service, and what cannot go to Dask's scheduler."""

from __future__ import annotations

import pickle
from pathlib import Path

import dask.dataframe as dd
import pandas as pd
import pytest
from distributed import Client
from support.dask_jobs import nothing_left
from support.metadata_proxy import metadata_proxy

import cosco.dask
from cosco import Connection, InvalidArgument
from cosco.dask.switch import new_settings

SECRET = "cosco-token-secret"
CAPABILITY = "cosco1.of-a-test"


@pytest.mark.parametrize("token", [SECRET, lambda: SECRET])
def test_a_token_that_would_stay_behind_is_refused(token: object) -> None:
    with pytest.raises(InvalidArgument, match="token_file") as caught:
        new_settings(Connection("here:1", token=token), 1)  # type: ignore[arg-type]
    assert SECRET not in str(caught.value)


def test_names_of_files_go_to_the_scheduler() -> None:
    connection = Connection("here:1", ca="/ca", token_file="/token")
    assert pickle.loads(pickle.dumps(new_settings(connection, 2))).metadata == connection


def test_workers_write_and_read_without_a_token(
    bare_client: Client, metadata: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler, which is in this process, has one; workers began without."""
    (tmp_path / "token").write_text(SECRET)
    monkeypatch.setenv("COSCO_TOKEN_FILE", str(tmp_path / "token"))
    frame = pd.DataFrame({"key": range(100), "value": range(100)})
    with metadata_proxy(metadata, CAPABILITY) as proxy:
        cosco.dask.enable(bare_client, Connection(proxy.address), replicas=1)
        try:
            shuffled = dd.from_pandas(frame, npartitions=3).shuffle("key").compute()
        finally:
            cosco.dask.disable(bare_client)
        assert sorted(shuffled["value"]) == list(range(100))
        del shuffled
        nothing_left(metadata)
    assert set(proxy.shown["CreateExchange"]) == {SECRET}
    for method in ("OpenAttempt", "Commit", "DescribeExchange"):
        assert set(proxy.shown[method]) == {CAPABILITY}, method
