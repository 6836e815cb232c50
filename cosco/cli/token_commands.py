"""`cosco token`: who may call the metadata service, in a file of tokens."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import click

from cosco.cli.cluster_commands import json_option, say
from cosco.cli.text_table import table
from cosco.errors import CoscoError, InvalidArgument
from cosco.protocol.peer import Principal, Role

_DAY_S = 86_400

tokens_option = click.option(
    "--tokens",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="COSCO_METADATA_TOKENS",
    show_envvar=True,
    required=True,
    help="file of tokens, as cosco-metadata --tokens has it",
)


@click.group(no_args_is_help=False)
def token() -> None:
    """Make, list and revoke tokens, by which the metadata service knows who calls."""


@token.command()
@tokens_option
@click.option("--tenant", required=True, help="whose exchanges who has it makes")
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    required=True,
    help="admin: all there is; tenant: what is of the tenant; viewer: look at that",
)
@click.option(
    "--name", default="", help="of the token, for logs; none: the tenant's and some digits"
)
@click.option(
    "--expires-days",
    type=click.IntRange(min=1, max=3650),
    help="how long it is good; none: until it is revoked",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="new file for the token, for its owner alone; none: it is printed",
)
def create(
    path: Path, tenant: str, role: str, name: str, expires_days: int | None, out: Path | None
) -> int:
    """Make a token, which is shown once: the file has only a hash of it.

    A metadata service that runs takes it up within some seconds. The file is for its owner alone:
    make it as the user that the service runs as, or change its owner, which is kept from then on.
    """
    from cosco.metadata.access.token_file import add_record
    from cosco.metadata.access.token_records import new_token

    now_s = int(time.time())
    name = name or f"{tenant[:50]}-{os.urandom(4).hex()}"
    expires_s = now_s + expires_days * _DAY_S if expires_days else 0
    text, record = new_token(Principal(name, tenant, Role(role)), now_s, expires_s)
    if out is not None:
        # Before anybody may use it: a token that is nowhere would only be a riddle in the list.
        _write_new(out, text)
    try:
        add_record(path, record)
    except CoscoError:
        if out is not None:
            out.unlink(missing_ok=True)
        raise
    if out is not None:
        click.echo(f"the token {name} is in {out}")
    else:
        click.echo(text)
        click.echo(f"this is the token {name}, which is shown once: keep it secret", err=True)
    return 0


@token.command(name="list")
@tokens_option
@json_option
def list_tokens(path: Path, as_json: bool) -> int:
    """List the tokens of a file, which does not have the tokens themselves."""
    from cosco.metadata.access.token_file import read_records
    from cosco.metadata.access.token_records import shown_time

    now_s = time.time()
    records = read_records(path).values()
    if as_json:
        shown = [
            {
                "name": one.principal.name,
                "tenant": one.principal.tenant,
                "role": one.principal.role.value,
                "created": shown_time(one.created_s),
                "expires": shown_time(one.expires_s) if one.expires_s else None,
                "expired": one.has_expired(now_s),
            }
            for one in records
        ]
        click.echo(json.dumps(shown, indent=2))
        return 0
    rows = [
        (
            one.principal.name,
            one.principal.tenant,
            one.principal.role.value,
            shown_time(one.created_s),
            (shown_time(one.expires_s) if one.expires_s else "never")
            + (" (has expired)" if one.has_expired(now_s) else ""),
        )
        for one in records
    ]
    head = ("name", "tenant", "role", "created", "expires")
    click.echo("\n".join([f"{len(rows)} tokens", *table(head, rows)]))
    return 0


@token.command()
@click.argument("name")
@tokens_option
@json_option
def revoke(name: str, path: Path, as_json: bool) -> int:
    """Take the token NAME out of a file: a metadata service that runs refuses it within some
    seconds."""
    from cosco.metadata.access.token_file import remove_record

    remove_record(path, name)
    say(as_json, f"{name} is revoked", name=name, revoked=True)
    return 0


def _write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet, for its owner alone."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{text}\n")
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise InvalidArgument(f"{path} is there already: name a new file") from None
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be written: {error.strerror}") from None
