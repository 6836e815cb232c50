"""`cosco-metadata`."""

from __future__ import annotations

from typing import Any

import click

from cosco.cli.options import config_options, run_command, version_option
from cosco.cli.services import log_options, run_service
from cosco.config import MetadataConfig
from cosco.process.log_output import LogSettings

NAME = "cosco-metadata"


@click.command
@config_options(MetadataConfig)
@log_options(MetadataConfig.env_prefix)
@version_option
def command(log_level: str, log_format: str, **options: Any) -> None:
    """Run the metadata service: exchanges, placement and commits."""
    config = MetadataConfig(**options)
    config.validate()
    logs = LogSettings(log_level, log_format)
    logs.validate()
    from cosco.metadata.server import serve

    run_service(NAME, serve, config, logs)


def main() -> None:
    """Run the console script."""
    run_command(command, NAME)


if __name__ == "__main__":
    main()
