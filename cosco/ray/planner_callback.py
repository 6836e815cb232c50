"""What a DataContext carries that brings our rules to a planner, wherever a dataset is run.

Every task of a dataset has its context, and most tasks plan nothing: so the rules, and the clients
of Cosco behind them, are imported where a planner asks for them.
"""

from __future__ import annotations

from typing import Any


def installer() -> Any:
    """Return a callback of an execution, whose making adds the rules to this process.

    It stands among the classes of callbacks, which the planner calls without arguments.

    Raises: EngineUnavailable, if Ray is not as it must be.
    """
    from cosco.ray.planner_rules import Installer  # noqa: PLC0415  see above

    return Installer()
