"""Builds the plugin for Spark, tests it, packs it: where Java and Maven are.

Where something is missing, one line says what; `make test` does without.

    spark_plugin.py jars           both jars, into spark/target
    spark_plugin.py check          the same, and the tests of the Java code
    spark_plugin.py install STAMP  a wheel of those jars, into the environment of this Python
    spark_plugin.py wheel DIR      the jars, and that wheel
    spark_plugin.py ready          whether it can be built; says what is missing
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
SPARK: Final = ROOT / "spark"
SCALA: Final = ("2.13", "2.12")
JAVA_LEAST: Final = 17
_HOW_TO: Final = (
    "Install a JDK 17 or later and Maven (on Debian and Ubuntu openjdk-17-jdk-headless and maven)"
)


def missing() -> str | None:
    """Return what is missing to build it, None if nothing is."""
    for command in ("javac", "mvn"):
        if shutil.which(command) is None:
            return f"{command} is not on the PATH"
    said = subprocess.run(["javac", "-version"], capture_output=True, text=True, check=False)
    found = re.search(r"javac (\d+)", said.stdout + said.stderr)
    if found is None or int(found[1]) < JAVA_LEAST:
        return f"a JDK {JAVA_LEAST} or later is needed, and this one says {said.stdout.strip()!r}"
    return None


def build(goal: str) -> int:
    """Run Maven for each Scala version: with tests for the first one if the goal is `verify`."""
    for scala in SCALA:
        skipped = ["-Dmaven.test.skip=true"]
        if scala == SCALA[0]:  # tests/spark starts programs that lie among the tests
            skipped = [] if goal == "verify" else ["-DskipTests"]
        profile = [f"-Pscala-{scala}"] if scala != SCALA[0] else []
        command = ["mvn", "--quiet", "--batch-mode", "--no-transfer-progress", goal]
        code = subprocess.run([*command, *profile, *skipped], cwd=SPARK, check=False).returncode
        if code:
            return code
    return 0


def pack(target: list[str]) -> int:
    """Make a wheel of both jars, or install it, with pip: `target` says which."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "cosco-spark"
        shutil.copytree(SPARK / "wheel", source)
        jars = source / "cosco_spark" / "jars"
        jars.mkdir()
        for scala in SCALA:
            name = f"cosco-spark_{scala}.jar"
            shutil.copyfile(SPARK / "target" / f"scala-{scala}" / name, jars / name)
        pip = [sys.executable, "-m", "pip", *target, "--quiet", "--disable-pip-version-check"]
        command = [*pip, "--no-deps", str(source)]
        return subprocess.run(command, check=False, env=os.environ).returncode


def main(action: str, *arguments: str) -> int:
    lacks = missing()
    if lacks is not None:
        print(f"the plugin for Spark is not built: {lacks}. {_HOW_TO}", file=sys.stderr)
        return 1 if action == "ready" else 0
    match action:
        case "jars":
            code = build("package")
        case "check":
            code = build("verify")
        case "wheel":
            Path(arguments[0]).mkdir(parents=True, exist_ok=True)
            code = build("package") or pack(["wheel", "--wheel-dir", arguments[0]])
        case "install":
            code = pack(["install", "--force-reinstall"])
            if code == 0:
                Path(arguments[0]).touch()
        case _:
            code = 0
    return code


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
