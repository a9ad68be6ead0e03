"""The tasks to solve: the catalogue of suites, and tasks looked up by name."""

from shipbench.tasks.catalogue import Suite, Task
from shipbench.tasks.registry import SUITES, TASKS, canonical_name, get_task, parse_tasks, suite_of

__all__ = ["SUITES", "TASKS", "Suite", "Task", "canonical_name", "get_task", "parse_tasks", "suite_of"]
