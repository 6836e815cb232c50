"""`cosco-metadata`."""

from __future__ import annotations

from typing import Any

import click

from cosco.cli.options import config_options, run_command, version_option
from cosco.cli.services import log_level_option, run_service
from cosco.config import MetadataConfig

NAME = "cosco-metadata"


@click.command
@config_options(MetadataConfig)
@log_level_option(MetadataConfig.env_prefix)
@version_option
def command(log_level: str, **options: Any) -> None:
    """Run the metadata service: exchanges, placement and commits."""
    config = MetadataConfig(**options)
    config.validate()
    from cosco.metadata.server import serve

    run_service(NAME, serve, config, log_level)


def main() -> None:
    """Run the console script."""
    run_command(command, NAME)


if __name__ == "__main__":
    main()
