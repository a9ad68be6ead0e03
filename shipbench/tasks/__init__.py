"""The tasks to solve: the catalogue of suites, tasks of one's own, and tasks looked up by name."""

from shipbench.tasks.catalogue import Suite, Task
from shipbench.tasks.registry import SUITES, TASKS, canonical_name, get_task, parse_tasks, suite_of, suite_tasks
from shipbench.tasks.task_file import load_task_file

__all__ = [
    "SUITES",
    "TASKS",
    "Suite",
    "Task",
    "canonical_name",
    "get_task",
    "load_task_file",
    "parse_tasks",
    "suite_of",
    "suite_tasks",
]
