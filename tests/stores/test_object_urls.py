"""URLs of buckets, and what errors of obstore become."""

from __future__ import annotations

import pytest
from obstore.exceptions import AlreadyExistsError, GenericError, PermissionDeniedError

from cosco.dfs import Store, StoreFull, open_store
from cosco.dfs.objects.object_errors import PastTheEnd, RangeIgnored, Torn, explained
from cosco.dfs.objects.object_urls import RETRY_S, TIMEOUT_S, parse_bucket
from cosco.errors import InvalidArgument


def test_what_a_url_says() -> None:
    bucket = parse_bucket("s3://my-bucket/a%20b/c/?region=eu-1&timeout_s=2.5&exclusive=false")
    assert (bucket.scheme, bucket.name, bucket.prefix) == ("s3", "my-bucket", "a b/c")
    assert (bucket.timeout_s, bucket.retry_s, bucket.exclusive) == (2.5, RETRY_S, False)
    assert bucket.parameters["region"] == "eu-1"
    bucket = parse_bucket("gs://my-bucket")
    assert (bucket.prefix, bucket.timeout_s, bucket.exclusive) == ("", TIMEOUT_S, True)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("s3://", "names no bucket"),
        ("s3:///x", "names no bucket"),
        ("s3:bucket", "names no bucket"),
        ("s3://buc ket/x", "names no bucket"),
        ("az://bucket:80/x", "names no bucket"),
        ("s3://b/a//c", "no path within a store"),
        ("s3://b/../c", "no path within a store"),
        ("s3://b/cosco-store.x", "keeps for itself"),
        ("s3://b?colour=red", "unknown or repeated parameter 'colour': endpoint, "),
        ("gs://b?region=eu", "parameter 'region'"),
        ("s3://b?region=a&region=b", "repeated"),
        ("s3://b#x", "unknown or repeated"),
        ("s3://b?region", "is no URL"),
        ("s3://b?timeout_s=0", "from 0.1 to 600"),
        ("s3://b?timeout_s=nan", "from 0.1 to 600"),
        ("s3://b?retry_s=soon", "from 0.1 to 600"),
        ("s3://b?exclusive=maybe", "true or false"),
        ("s3://b?endpoint=localhost:9000", "endpoint must be https://"),
    ],
)
def test_urls_that_are_refused(url: str, reason: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        open_store(url)
    assert reason in str(caught.value)
    assert repr(url) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/prefix?region=eu-1",
        "s3://bucket?endpoint=https://s3.example.org&virtual_hosts=true",
        "az://container/prefix?account=somebody",
        "az://container?account=somebody&endpoint=http://127.0.0.1:10000/somebody",
    ],
)
def test_stores_are_made_without_asking_anybody(url: str) -> None:
    store: Store = open_store(url)
    assert store.url == url
    assert store.durable


def test_googles_store_takes_its_credentials_from_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("google") / "keys.json"
    file.write_text("{}")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    with pytest.raises(InvalidArgument, match=r"store 'gs://bucket/x' cannot be used: "):
        open_store("gs://bucket/x")


def answered(status: int, code: str, message: str = "so it is") -> str:
    return (
        f"Generic S3 error: Error performing GET http://h/b/k?X-Amz-Signature=hush in 1ms - Server "
        f"returned non-2xx status code: {status} X: <Error><Code>{code}</Code>\n"
        f"<Message>{message}</Message><Token>hush</Token></Error>\n\nDebug source:\nhush"
    )


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (FileNotFoundError(answered(404, "NoSuchKey")), FileNotFoundError, "no such file"),
        (FileNotFoundError(answered(404, "BlobNotFound")), FileNotFoundError, "no such file"),
        (FileNotFoundError(answered(404, "NoSuchBucket")), OSError, "make the bucket"),
        (FileNotFoundError("404"), OSError, "has failed"),
        (GenericError("DeleteObjects request failed for key a/b: gone. (code: NoSuchKey)"),
         FileNotFoundError, "no such file"),
        (GenericError("DeleteObjects request failed for key a/b: no. (code: AccessDenied)"),
         PermissionError, "with an error AccessDenied"),
        (AlreadyExistsError("x"), FileExistsError, "there is such a file"),
        (GenericError(answered(416, "InvalidRange")), PastTheEnd, "behind the end"),
        (GenericError(answered(507, "")), StoreFull, "507"),
        (GenericError(answered(400, "ExpiredToken")), PermissionError, "renew"),
        (GenericError(answered(500, "InternalError")), OSError, "500 InternalError (so it is)"),
        (PermissionDeniedError("no hush\n"), PermissionError, "answered with an error"),
        (GenericError("x\nDebug: kind: Timeout,"), TimeoutError, "not answered in time"),
        (GenericError('x\nkind: Connect, message: "refused"'), ConnectionError, "reached: refused"),
        (GenericError("Received non-partial response when"), RangeIgnored, "ignores ranges"),
        (GenericError("HTTP error: error decoding response body"), Torn, "broken off"),
        (GenericError("Error performing PUT http://169.254.169.254/latest/api/token in 1s"),
         PermissionError, "no role of this machine"),
        (GenericError("External AWS credential provider: PermissionError: the profile 'x' has"),
         PermissionError, "no credentials for the store: the profile 'x' has"),
        (GenericError("External AWS credential provider: KeyError: hush"),
         PermissionError, "their provider has raised KeyError"),
        (GenericError("odd http://h/b?sig=hush\nhush"), OSError, "has failed: odd http://h/b"),
    ],
)  # fmt: skip
def test_errors_say_what_they_mean_and_no_more(
    error: Exception, kind: type[OSError], said: str
) -> None:
    found = explained(error, "c/f")
    if kind is OSError:
        assert not isinstance(found, FileNotFoundError | PermissionError | StoreFull)
    else:
        assert isinstance(found, kind)
    assert said in str(found)
    assert found.errno is not None
    assert "\n" not in str(found)
    assert "hush" not in str(found)


def test_values_of_secret_variables_are_never_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "very-hush")
    assert "very-hush" not in str(explained(GenericError("cannot decode very-hush"), "f"))
