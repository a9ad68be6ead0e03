"""Follow-ups of a study's finished runs: evaluations on other or corrupted images, and stored features.

A follow-up makes one or several outputs of each run. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias, TypeVar

from shipbench.counts import counted
from shipbench.data.corruptions import Corruption, parse_corruptions
from shipbench.errors import InputError
from shipbench.methods import method_names
from shipbench.planning.grid import parse_seeds
from shipbench.planning.plan import PlannedRun
from shipbench.planning.study.file import EvaluatePart, FollowUp
from shipbench.results.store import Store
from shipbench.runs.evaluation_images import images_elsewhere
from shipbench.runs.evaluation_plan import EvaluationOptions, PlannedEvaluation, plan_evaluation
from shipbench.runs.finished import tested_record, weights_of
from shipbench.settings import comma_list
from shipbench.spec import RunSpec
from shipbench.tasks import Task, parse_tasks
from shipbench.tasks.own import is_source

Value = TypeVar("Value")
TaskName: TypeAlias = tuple[tuple[str, ...], str]
"""What tells the images of a task from others, and the name of the task."""


@dataclass(frozen=True)
class Outputs:
    """What a follow-up makes of one run: ``count`` evaluations, or one file of features; ``done`` of them exist.

    ``evaluation`` is the plan of the evaluations once the run is done. A run with a ``reason`` allows no output.
    """

    run: PlannedRun
    count: int
    done: int = 0
    ready: bool = False
    reason: str = ""
    evaluation: PlannedEvaluation | None = None

    @property
    def left(self) -> int:
        """The number of outputs that can be made now."""
        return self.count - self.done if self.ready and not self.reason else 0

    @property
    def waiting(self) -> int:
        """The number of outputs whose run is still to come."""
        return 0 if self.ready or self.reason else self.count


@dataclass(frozen=True)
class RequestedFollowUp:
    """A follow-up with its values parsed: the methods, tasks and seeds whose runs it reads, and corruptions.

    ``on`` is the task whose images replace those of the runs; ``fingerprint`` (hex) and ``num_images`` are those of its
    images, once they have been opened.
    """

    part: FollowUp
    methods: frozenset[str]
    tasks: frozenset[TaskName]
    seeds: frozenset[int]
    on: Task | None = None
    corruptions: tuple[Corruption, ...] = ()
    fingerprint: str = ""
    num_images: int | None = None

    @property
    def count(self) -> int:
        """The number of outputs of each run."""
        return len(self.corruptions) or 1

    def images(self, spec: RunSpec) -> int:
        """Return the number of images of each output of a run."""
        return self.num_images or (self.on or spec.resolved.task).counts.get("test", 0)

    def reads(self, spec: RunSpec) -> bool:
        """Return whether a run that was tested is among those that the follow-up reads."""
        chosen = spec.method in self.methods and _name_of(spec) in self.tasks and spec.seed in self.seeds
        return chosen and spec.protocol == "final"


@dataclass(frozen=True)
class FollowUpSection:
    """A follow-up with its outputs by run, and the specs of runs whose settings are chosen later."""

    requested: RequestedFollowUp
    outputs: tuple[Outputs, ...]
    later: tuple[RunSpec, ...] = ()

    @property
    def count(self) -> int:
        """The number of outputs of all runs."""
        return sum(each.count for each in self.outputs) + len(self.later) * self.requested.count

    @property
    def done(self) -> int:
        """The number of outputs that exist."""
        return sum(each.done for each in self.outputs)

    @property
    def left(self) -> int:
        """The number of outputs that can be made now."""
        return sum(each.left for each in self.outputs)

    @property
    def waiting(self) -> int:
        """The number of outputs whose runs are still to come."""
        return sum(each.waiting for each in self.outputs) + len(self.later) * self.requested.count

    @property
    def refused(self) -> list[Outputs]:
        """The runs that allow no output, with their reasons."""
        return [each for each in self.outputs if each.reason]

    @property
    def refusal(self) -> str:
        """One line with the number of runs that allow no output and the reason of the first; empty without any."""
        refused, part = self.refused, self.requested.part
        if not refused:
            return ""
        runs = f"{len(refused)} of {counted(len(self.outputs), 'run')} {'has' if len(refused) == 1 else 'have'}"
        return f"{part.name}: {runs} no {part.noun}: {refused[0].reason}"


def request_follow_up(part: FollowUp, specs: Sequence[RunSpec]) -> RequestedFollowUp:
    """Parse the values of a follow-up of the tested runs ``specs``.

    Raises ``InputError`` for a value that does not fit, and for a method, a task or a seed that no run has.
    """
    if not specs:
        raise InputError(f"there is nothing to read: no run of {part.of} is tested")
    requested = RequestedFollowUp(
        part,
        _chosen("methods", part.methods, method_names, {spec.method for spec in specs}),
        _chosen_tasks(part.tasks, set(map(_name_of, specs))),
        _chosen("seeds", part.seeds, lambda text: parse_seeds(text, "seeds"), {spec.seed for spec in specs}),
    )
    return _with_images_named(requested, part) if isinstance(part, EvaluatePart) else requested


def _chosen(key: str, text: str, parse: Callable[[str], Sequence[Value]], available: Set[Value]) -> frozenset[Value]:
    """Return the values in a comma list, each of which some run has; all that are available for an empty list."""
    for item in comma_list(text):
        if available.isdisjoint(parse(item)):
            choices = ", ".join(map(str, sorted(available, key=str)))
            raise InputError(f"{key}: none of the runs that it reads has {item!r}; choose from {choices}")
    return frozenset(value for item in comma_list(text) for value in parse(item)) if text else frozenset(available)


def _name_of(spec: RunSpec) -> TaskName:
    return spec.resolved.task.key, spec.resolved.task.name


def _chosen_tasks(text: str, available: Set[TaskName]) -> frozenset[TaskName]:
    """Return the tasks in a comma list: names that the runs give theirs, suites, SOURCEs and task files.

    All for an empty list. A SOURCE means its images, whatever number its name has among those of a part.
    """
    chosen: set[TaskName] = set()
    for item in comma_list(text):
        called = {(key, name) for key, name in available if name == item}
        if not called:
            tasks = {(task.key, "" if is_source(item) else task.name) for task in parse_tasks(item)}
            called = {(key, name) for key, name in available if not tasks.isdisjoint(((key, name), (key, "")))}
        if not called:
            choices = ", ".join(sorted({name for _, name in available}))
            raise InputError(f"tasks: none of the runs that it reads has {item!r}; choose from {choices}")
        chosen |= called
    return frozenset(chosen or available)


def _with_images_named(requested: RequestedFollowUp, part: EvaluatePart) -> RequestedFollowUp:
    if part.on is None and part.corrupt is None:
        raise InputError('it names no images; add on = "SOURCE", or corrupt = "all" for the runs\' own test images')
    if part.corrupt is None and part.severity is not None:
        raise InputError("severity needs corrupt, which names the corruptions")
    tasks = [] if part.on is None else parse_tasks(part.on, "on")
    if len(tasks) > 1:
        raise InputError(f"on = {part.on!r} names {len(tasks)} tasks; name one")
    corruptions = () if part.corrupt is None else parse_corruptions(part.corrupt, part.severity)
    return replace(requested, on=tasks[0] if tasks else None, corruptions=corruptions)


def with_images(requested: RequestedFollowUp, data: Path | None) -> RequestedFollowUp:
    """Return a follow-up with the fingerprint and the number of the images of ``on``.

    ``data`` is the folder of catalogued data sets. Raises ``InputError`` if the images cannot be opened.
    """
    if requested.on is None:
        return requested
    copy = images_elsewhere(requested.on, data)
    return replace(requested, fingerprint=copy.identity.fingerprint, num_images=copy.counts["test"])


def plan_follow_up(
    requested: RequestedFollowUp,
    runs: Iterable[PlannedRun],
    later: Sequence[RunSpec],
    is_due: Callable[[PlannedRun], bool],
    store: Store | None,
) -> FollowUpSection:
    """Return the outputs of those ``runs`` that the follow-up reads; ``is_due`` says which are to be executed first.

    Without a ``store``, every output waits.
    """
    read = {run.run_id: run for run in runs if requested.reads(run.spec)}
    outputs = tuple(
        Outputs(run, requested.count) if store is None or is_due(run) else _outputs(requested, run, store)
        for run in read.values()
    )
    return FollowUpSection(requested, outputs, tuple(spec for spec in later if requested.reads(spec)))


def _outputs(requested: RequestedFollowUp, run: PlannedRun, store: Store) -> Outputs:
    """Return the outputs of a run that has ended, with the reason if there can be none."""
    waiting = Outputs(run, requested.count, ready=True)
    try:
        if isinstance(requested.part, EvaluatePart):
            options = EvaluationOptions(
                requested.on or own_task(run.spec),
                requested.corruptions,
                run.spec.data,
                run.spec.checkpoint,
                run.spec.device,
            )
            planned = plan_evaluation(store, run.run_id, options)
            done = sum(planned.stored(run_id) is not None for run_id in planned.run_ids)
            return replace(waiting, done=done, evaluation=planned)
        weights_of(store, tested_record(store, run.run_id))
    except InputError as error:
        return replace(waiting, reason=str(error))
    return replace(waiting, done=int(store.path("features", run.run_id).exists()))


def own_task(spec: RunSpec) -> Task | None:
    """Return the task of a run on images outside the catalogue, whose place no record holds; None for others."""
    task = spec.resolved.task
    return None if task.catalogued else task
