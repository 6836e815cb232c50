"""Switches the current DataContext, and with it the datasets that are made of it."""

from __future__ import annotations

from cosco import Connection
from cosco.engine_exchanges import connection_to
from cosco.engine_versions import check_versions
from cosco.ray.context_switch import SWITCH, Switch
from cosco.ray.planner_callback import installer
from cosco.ray.planner_rules import add_rules, remove_rules
from cosco.ray.private_parts_of_ray import DataContext, ShuffleStrategy


def switch_on(metadata: Connection | str | None, replicas: int) -> None:
    """Have datasets that are made from now on in the current context shuffle through Cosco.

    Raises: EngineUnavailable, InvalidArgument.
    """
    check_versions("ray")
    connection = connection_to(metadata)  # of this process, also for those that run datasets
    context = DataContext.get_current()
    _take_out(context)
    add_rules()
    values = {"use_disk_based_hash_shuffle": False}
    if context.shuffle_strategy == ShuffleStrategy.HASH_SHUFFLE:  # its actors hold the partitions
        values["_shuffle_strategy"] = ShuffleStrategy.SHUFFLE_V2
    before = tuple((name, getattr(context, name)) for name in values)
    for name, value in values.items():
        setattr(context, name, value)
    context.custom_execution_callback_classes.append(installer)
    context.set_config(SWITCH, Switch(connection, replicas, before))


def switch_off() -> None:
    """Give the current context back what `switch_on` found there, and this process its planner."""
    _take_out(DataContext.get_current())
    remove_rules()


def _take_out(context: DataContext) -> None:
    switch: Switch | None = context.get_config(SWITCH)
    if switch is not None:
        context.remove_config(SWITCH)
        callbacks = context.custom_execution_callback_classes
        callbacks[:] = [one for one in callbacks if one is not installer]
        for name, value in switch.before:
            setattr(context, name, value)
