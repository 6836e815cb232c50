"""Install what the tests on HDFS need: jars by Maven, and Cluster.java compiled.

    python tests/stores/hdfs/install.py DIRECTORY

Writes to DIRECTORY `jars`, `classes` and, when all is there, `.installed`. Where Java or Maven is
not to be had it writes `missing`, which says so, and ends well: the tests are skipped for it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
TOOLS = {
    "java": "a JRE of Java 17 or later",
    "javac": "a JDK of Java 17 or later",
    "mvn": "Maven",
}
HINT = "on Debian and Ubuntu the packages openjdk-17-jdk-headless and maven"


def main(directory: Path) -> None:
    """Install into the directory, or say there what is missing."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    lacking = [f"{tool} ({what})" for tool, what in TOOLS.items() if not shutil.which(tool)]
    if lacking:
        text = f"the tests on HDFS need {', '.join(lacking)}: install {HINT}"
        (directory / "missing").write_text(text + "\n")
        print(text, file=sys.stderr)
        return
    jars, classes = directory / "jars", directory / "classes"
    run("mvn", "-q", "-B", "-f", HERE / "pom.xml", "dependency:copy-dependencies",
        f"-DoutputDirectory={jars.resolve()}")  # fmt: skip
    run("javac", "-nowarn", "-cp", f"{jars}/*", "-d", classes, HERE / "Cluster.java")
    (directory / ".installed").touch()


def run(*command: str | Path) -> None:
    """Run a command to its end; what it says is shown if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        sys.stderr.buffer.write(done.stdout)
        sys.exit(f"{command[0]} failed with exit code {done.returncode}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
