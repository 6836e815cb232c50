"""`cosco-shuffled`."""

from __future__ import annotations

import gc
from typing import Any

import click

from cosco.cli.options import config_options, run_command, version_option
from cosco.cli.services import log_options, run_draining_service
from cosco.config import DaemonConfig
from cosco.process.log_output import LogSettings

NAME = "cosco-shuffled"


@click.command
@config_options(DaemonConfig)
@log_options(DaemonConfig.env_prefix)
@version_option
def command(log_level: str, log_format: str, **options: Any) -> int:
    """Run a shuffle daemon: takes rows from writers and serves them to readers."""
    config = DaemonConfig(**options)
    config.validate()
    logs = LogSettings(log_level, log_format)
    logs.validate()
    if config.processes > 1:
        from cosco.cli.supervisor import Supervisor

        configs = [config.of_process(index) for index in range(config.processes)]
        return Supervisor(NAME, "cosco.cli.shuffled", configs, logs).run()
    from cosco.shuffle_service.server import serve

    # What was imported stays: to look through it again and again cost an eighth of a daemon's time
    # at 4,096 partitions, whose chunks are many new objects.
    gc.freeze()
    run_draining_service(NAME, serve, config, logs)
    return 0


def main() -> None:
    """Run the console script."""
    run_command(command, NAME)


if __name__ == "__main__":
    main()
