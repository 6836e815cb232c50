"""With TLS and tokens the driver shows its token, and tasks what is good for one exchange."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.spark_faults import executors
from support.spark_sessions import spark_session
from support.tenant_cluster import Tenants, make_certificates, running

from cosco import Connection
from cosco.process.tls.authority import CA
from cosco.process.tls.tls_files import CLIENT_VARIABLES

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenants]:
    with pytest.MonkeyPatch.context() as environment:
        certs = make_certificates(tmp_path_factory.mktemp("certs"), environment)
        with running(certs, "--tenant-exchanges", "2") as tenants:
            for variable in CLIENT_VARIABLES:  # what Spark is given is all that it has
                environment.delenv(variable)
            yield tenants


def connection(tenants: Tenants, token: Path) -> Connection:
    certs = tenants.certs
    return Connection(
        tenants.cluster.metadata,
        ca=certs / CA,
        cert=certs / "client.pem",
        key=certs / "client-key.pem",
        token_file=token,
    )


def sums(session: Any) -> Any:
    pairs = session.sparkContext.parallelize(range(700), 4).map(lambda i: (i % 7, 1))
    return pairs.reduceByKey(lambda a, b: a + b, 3)


COUNTS = dict.fromkeys(range(7), 100)


def test_rows_flow_and_secrets_stay_where_they_belong(tenants: Tenants, tmp_path: Path) -> None:
    file = tenants.certs / "ours.token"
    with spark_session(
        connection(tenants, file),
        tmp_path,
        master="local-cluster[1,2,1024]",
        executor__memory="512m",
        cosco_fallback="fail",
    ) as session:
        context = session.sparkContext
        context.setLogLevel("INFO")
        shuffled = sums(session)
        assert shuffled.collectAsMap() == COUNTS
        secrets = [file.read_text().strip(), capability(shuffled)]
        assert all(len(secret) >= 16 for secret in secrets)
        shown = [context.getConf().toDebugString()]
        shown.append(str(context._jsc.sc().statusStore().environmentInfo().sparkProperties()))
        for process in [*executors(), *psutil.Process().children()]:
            shown += [" ".join(process.cmdline()), str(process.environ())]
        logs = list(log_files(context))
        assert logs
        shown += [log.read_text(errors="replace") for log in logs]
        assert not [secret for secret in secrets for text in shown if secret in text]


def handle(shuffled: Any) -> Any:
    """Return the handle of the shuffle before an RDD of Python."""
    rdd = shuffled._jrdd.rdd()
    while not rdd.getClass().getName().endswith("ShuffledRDD"):
        rdd = rdd.dependencies().head().rdd()
    return rdd.dependencies().head().shuffleHandle()


def capability(shuffled: Any) -> str:
    of = handle(shuffled)
    field = of.getClass().getDeclaredField("capability")
    field.setAccessible(True)
    return str(field.get(of))


def log_files(context: Any) -> Iterator[Path]:
    """Yield what the executors have written."""
    import pyspark

    work = Path(pyspark.__file__).parent / "work" / context.applicationId
    yield from work.glob("*/std*")


def test_a_token_that_nobody_knows_is_told(tenants: Tenants, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text((tenants.certs / "ours.token").read_text().strip()[:-4] + "AAAA")
    with (
        spark_session(connection(tenants, wrong), tmp_path / "spark") as session,
        pytest.raises(Exception, match=r"Cosco cannot take shuffle .*token"),
    ):
        sums(session).collect()


def test_beyond_a_quota_shuffles_are_left_to_sparks_own(tenants: Tenants, tmp_path: Path) -> None:
    mine = connection(tenants, tenants.certs / "ours.token")
    with spark_session(mine, tmp_path) as session:
        kept = [sums(session) for _ in range(3)]
        assert [one.collectAsMap() for one in kept] == [COUNTS] * 3
        names = [str(handle(one).getClass().getName()) for one in kept]
        assert [name.endswith("CoscoShuffleHandle") for name in names] == [True, True, False]
