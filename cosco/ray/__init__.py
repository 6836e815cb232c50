"""Ray Data through Cosco: one line in the driver, and every dataset's shuffles go to its daemons.

    import cosco.ray

    cosco.ray.enable("metadata-host:7070")

docs/engines.md says what switches, what does not, and what happens when something fails, and
docs/words.md has the words.
"""

from __future__ import annotations

from cosco import Connection
from cosco.engine_versions import needed

__all__ = ["disable", "enable"]


def enable(metadata: Connection | str | None = None, *, replicas: int = 2) -> None:
    """Have the datasets that are made from now on shuffle through Cosco.

    The settings go into the current DataContext, which every dataset copies when it is made. So
    this works for datasets wherever they are run: here, in a task, or behind `streaming_split`.

    metadata: `host:port` of the metadata service, as Ray's workers reach it; None: what
    COSCO_METADATA says here; or a `cosco.Connection`. A token is needed where datasets are run, not
    by tasks; one that was given as `token=` does not leave this process. replicas: copies of each
    row, 1 or 2. With one, the input of map tasks stays in Ray's object store until the dataset is
    done, so that tasks whose rows were lost run again; with two it need not, unless the context's
    `cosco.ray.keep_inputs` is True.

    Called again it changes both arguments. Raises: EngineUnavailable, if Ray is missing or of
    another version than those that were tested; InvalidArgument.
    """
    from cosco.engine_exchanges import checked_replicas  # noqa: PLC0415  see planner_callback

    replicas = checked_replicas(replicas)
    with needed("ray"):
        from cosco.ray.installation import switch_on  # noqa: PLC0415  importing Ray takes seconds
    switch_on(metadata, replicas)


def disable() -> None:
    """Have the datasets that are made from now on shuffle as Ray does by itself.

    The current DataContext is as before `enable`. Datasets that were made meanwhile have a copy of
    their own, as Ray has it, and go on through Cosco. Harmless where nothing was enabled.
    """
    with needed("ray"):
        from cosco.ray.installation import switch_off  # noqa: PLC0415
    switch_off()
