"""How Cosco's operators come into plans, in whatever process a dataset is run.

A DataContext travels with its datasets: to tasks, and to the actor behind `streaming_split`. The
planner makes one object of each class in `custom_execution_callback_classes` before it plans. So
`Installer`, which `planner_callback` makes there, comes in time to add two rules to the planner of
its process. These do nothing to a plan whose context has no `Switch`.
"""

from __future__ import annotations

import threading
from typing import Final

from cosco.ray.context_switch import SWITCH
from cosco.ray.operator_shuffle import OperatorShuffle
from cosco.ray.private_parts_of_ray import (
    ExecutionCallback,
    FuseOperators,
    PhysicalPlan,
    Rule,
    check_parts,
    get_physical_ruleset,
    replace_operators,
    replace_schedulers,
)

_LOCK: Final = threading.Lock()


class SchedulersThroughCosco(Rule):
    """Has all-to-all operators start their tasks in our way."""

    @classmethod
    def dependents(cls) -> list[type[Rule]]:
        return [FuseOperators]

    def apply(self, plan: PhysicalPlan) -> PhysicalPlan:
        return plan if plan.context.get_config(SWITCH) is None else replace_schedulers(plan)


class OperatorsThroughCosco(Rule):
    """Replaces the operators of shuffles."""

    @classmethod
    def dependencies(cls) -> list[type[Rule]]:
        return [FuseOperators]

    def apply(self, plan: PhysicalPlan) -> PhysicalPlan:
        if plan.context.get_config(SWITCH) is None:
            return plan
        return replace_operators(plan, OperatorShuffle)


RULES: Final = (SchedulersThroughCosco, OperatorsThroughCosco)


class Installer(ExecutionCallback):
    """Adds the rules to the process in which it is made."""

    def __init__(self) -> None:
        """Add them, unless they are there.

        Raises: EngineUnavailable, if Ray is not as it must be.
        """
        add_rules()


def add_rules() -> None:
    """Have this process's planner apply our rules.

    Raises: EngineUnavailable, if Ray is not as it must be.
    """
    check_parts()
    ruleset = get_physical_ruleset()
    with _LOCK:
        for rule in RULES:
            if rule not in set(ruleset):
                ruleset.add(rule)


def remove_rules() -> None:
    """Have this process's planner as it was."""
    ruleset = get_physical_ruleset()
    with _LOCK:
        for rule in RULES:
            if rule in set(ruleset):
                ruleset.remove(rule)
