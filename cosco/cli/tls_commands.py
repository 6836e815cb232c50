"""`cosco tls`: certificates for a cluster that has none."""

from __future__ import annotations

from pathlib import Path

import click

from cosco.errors import InvalidArgument


@click.group(no_args_is_help=False)
def tls() -> None:
    """Make certificates for a cluster that has none."""


@tls.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--host",
    "hosts",
    multiple=True,
    help="name or address by which services are reached, beside this machine's; several times",
)
@click.option(
    "--days",
    type=click.IntRange(min=1, max=3650),
    default=365,
    show_default=True,
    help="how long the certificates are good",
)
@click.option("--renew", is_flag=True, help="make new certificates by the authority that is there")
def init(directory: Path, hosts: tuple[str, ...], days: int, renew: bool) -> int:
    """Make an authority in DIRECTORY, and certificates of a metadata service, daemons and clients.

    Keys, and the directory if it is made, are for their owner alone: have services run as that
    user, or change it; renewed files have the owner and the mode of those before. The key of the
    authority, ca-key.pem, is needed to renew and by no service: keep it elsewhere.
    """
    try:
        from cosco.process.tls import authority
    except ImportError:
        raise InvalidArgument(
            "certificates are made by the package cryptography: run pip install 'cosco[tls]'"
        ) from None
    make = authority.renew if renew else authority.make_authority
    for path in make(directory, hosts, days):
        click.echo(path)
    if not renew:
        where = directory.absolute()
        click.echo(_NEXT.format(where=where))
    return 0


_NEXT = """
With these, and a store that all daemons reach:
  cosco-metadata --listen HOST:7070 --tls-ca {where}/ca.pem \\
    --tls-cert {where}/metadata.pem --tls-key {where}/metadata-key.pem
  cosco-shuffled --listen HOST:7071 --metadata HOST:7070 --tls-ca {where}/ca.pem \\
    --tls-cert {where}/daemon.pem --tls-key {where}/daemon-key.pem
  export COSCO_TLS_CA={where}/ca.pem COSCO_TLS_CERT={where}/client.pem \\
    COSCO_TLS_KEY={where}/client-key.pem"""
