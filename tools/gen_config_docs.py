"""Generate docs/configuration.md from cosco/config.py; with --check only say if it is current."""

from __future__ import annotations

import sys
from pathlib import Path

from cosco.cli.options import ConfigClass, option_specs
from cosco.cli.services import LOG_FORMAT_HELP, LOG_LEVEL_HELP
from cosco.client.access.credentials import TOKEN_FILE_VARIABLE
from cosco.config import DEFAULT_METADATA, METADATA_VARIABLE, DaemonConfig, MetadataConfig
from cosco.mechanics import ENVIRONMENT
from cosco.process.tls.tls_files import CLIENT_VARIABLES

TARGET = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"

_FILES = ", ".join(f"`{name}`" for name in (*CLIENT_VARIABLES, TOKEN_FILE_VARIABLE))
_HEAD = f"""\
# Configuration

Generated from [`cosco/config.py`](../cosco/config.py) by `make config-docs`; do not edit.

Every option of a service can be given on the command line or in the environment; the command
line wins. Sizes are bytes, given as `256MiB` (powers of 1024), `1GB` (powers of 1000) or a
plain number. Times are seconds. A service reads its options once, when it starts.

Clients and commands find the metadata service by their `metadata` argument or option, then by
the variable `{METADATA_VARIABLE}`, then at `{DEFAULT_METADATA}`. They go by the files that
{_FILES} name, or a
`cosco.Connection`: [security.md](security.md#as-whom-a-client-calls).

`{ENVIRONMENT}=off` has a process, service or client, do without the [native
part](architecture/native.md) where that is installed.
"""

_SECTIONS: tuple[tuple[str, ConfigClass], ...] = (
    ("cosco-metadata", MetadataConfig),
    ("cosco-shuffled", DaemonConfig),
)


def render() -> str:
    """Return the text of docs/configuration.md."""
    parts = [_HEAD]
    for command, config_class in _SECTIONS:
        parts.append(f"\n## `{command}`\n")
        parts.append("| option | environment | default | meaning |\n| --- | --- | --- | --- |")
        for spec in option_specs(config_class):
            default = f"`{spec.shown_default}`" if spec.shown_default else "empty"
            parts.append(f"| `{spec.name}` | `{spec.variable}` | {default} | {spec.help} |")
        for name, default, text in (
            ("log-level", "info", LOG_LEVEL_HELP),
            ("log-format", "text", LOG_FORMAT_HELP),
        ):
            variable = config_class.env_prefix + name.upper().replace("-", "_")
            parts.append(f"| `--{name}` | `{variable}` | `{default}` | {text} |")
    return "\n".join(parts) + "\n"


def main() -> int:
    text = render()
    if TARGET.exists() and TARGET.read_text() == text:
        return 0
    if "--check" in sys.argv[1:]:
        print(f"{TARGET.name} is not what the code says: run `make config-docs`", file=sys.stderr)
        return 1
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
