"""A HDFS for tests: one process of Java with a namenode and datanodes (Cluster.java)."""

from __future__ import annotations

import select
import shutil
import subprocess
import uuid
from pathlib import Path

ROOT = Path(__file__).parents[3]
INSTALLED = ROOT / ".stores" / "hdfs"
_START_S = 60.0
_COMMAND_S = 60.0


def why_missing() -> str:
    """Return what is missing for a HDFS to start here; empty if nothing is."""
    if (INSTALLED / ".installed").exists():
        return ""
    missing = INSTALLED / "missing"
    return (
        missing.read_text().strip()
        if missing.exists()
        else "HDFS for tests is not installed: make stores"
    )


class MiniCluster:
    """A HDFS of this process, with everything it stores in `directory`; started when made."""

    def __init__(self, directory: Path, datanodes: int = 2, capacity_bytes: int = 0) -> None:
        java = shutil.which("java")
        assert java is not None
        directory.mkdir(parents=True)
        self._log = (directory / "java.log").open("wb")
        jars = f"{INSTALLED}/classes:{INSTALLED}/jars/*"
        self._process = subprocess.Popen(
            [java, "-Xmx512m", "-XX:+UseSerialGC", "-cp", jars, "Cluster",
             directory / "data", str(datanodes), str(capacity_bytes)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, bufsize=1,
        )  # fmt: skip
        try:
            self.port = int(self._answer(_START_S).removeprefix("port "))
        except BaseException:
            self.stop()
            raise

    @property
    def address(self) -> str:
        """Its URL without a folder."""
        return f"hdfs://127.0.0.1:{self.port}"

    def new_folder(self) -> str:
        """Return the path of a folder that nobody has used."""
        return f"/{uuid.uuid4().hex}"

    def tell(self, *words: object) -> str:
        """Have it obey a command of Cluster.java, and return the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        answer = self._answer(_COMMAND_S)
        assert answer.startswith("ok"), f"{words}: {answer}"
        return answer[3:]

    def stop(self) -> None:
        """End it, and all that it has stored with it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()

    def _answer(self, seconds: float) -> str:
        stdout = self._process.stdout
        assert stdout is not None
        if not select.select([stdout], [], [], seconds)[0]:
            self._process.kill()
            raise TimeoutError(f"no answer in {seconds:g} s: see {self._log.name!r}")
        line = stdout.readline().strip()
        assert line, f"it has ended: see {self._log.name!r}"
        return line
