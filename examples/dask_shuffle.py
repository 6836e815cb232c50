"""A shuffle of Dask through Cosco: one line more than without.

pip install 'cosco[dask]'
python examples/dask_shuffle.py
"""

import dask.datasets
from distributed import Client

import cosco.dask


def main() -> None:
    with cosco.LocalCluster(daemons=2) as services, Client(n_workers=2) as client:
        cosco.dask.enable(client, services.metadata)  # the line
        frame = dask.datasets.timeseries("2024-01-01", "2024-01-15")
        longest = frame.groupby("name").apply(
            lambda rows: rows.x.abs().max(), meta=("longest", "float64")
        )
        print(longest.nlargest(5).compute())


if __name__ == "__main__":
    main()
