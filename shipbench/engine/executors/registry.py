"""Executors, found by the name of their engine through the entry-point group ``shipbench.engines``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from shipbench.errors import InputError, unknown
from shipbench.events import Listener
from shipbench.planning.plan import Plan, PlannedRun
from shipbench.planning.stacks import Stacking
from shipbench.runtime.plug_ins import find_plug_in, make_plug_in, registered

GROUP = "shipbench.engines"


@dataclass(frozen=True)
class EngineOptions:
    """The options of a command that concern its engine.

    ``jobs`` is the number of runs to execute in parallel, or None to let the engine choose; ``stacking`` says which
    runs may be trained together; ``scheduler`` is the address of a cluster's scheduler; ``cluster`` holds the options
    of a cluster's jobs, by name.
    """

    jobs: int | None = None
    stacking: Stacking = field(default_factory=Stacking)
    scheduler: str | None = None
    cluster: Mapping[str, str] = field(default_factory=dict)


class Executor(Protocol):
    """Executes the runs of one plan.

    An entry point names a class that is constructed with ``EngineOptions``; the constructor raises ``InputError`` for
    options that do not fit the engine and for software that this machine lacks, without using the network. Importing
    the class, constructing it and calling ``check`` must not import torch, so that dry runs stay fast.
    """

    @property
    def remote(self) -> bool:
        """Whether runs execute on other machines, whose devices need not exist here."""
        ...

    def check(self) -> None:
        """Raise ``InputError`` if this engine is unavailable, as when no scheduler answers; may use the network.

        It is called after everything that can be refused without the network, and before anything is planned.
        """
        ...

    def execute(self, runs: Sequence[PlannedRun], plan: Plan, results: Path, emit: Listener) -> None:
        """Attempt every run (``shipbench.engine.attempt``) and return when no run is in progress.

        ``runs`` are those of ``plan`` that are still to be done. The supervisor calls this again for runs that have no
        record afterwards, as after the death of a worker.
        """
        ...


def list_engines() -> list[str]:
    """Return the names of all installed engines, sorted."""
    return list(registered(GROUP))


def get_executor(name: str, options: EngineOptions) -> Executor:
    """Return a new executor of the engine called ``name``, for one plan.

    Raises ``InputError`` if there is no such engine or several packages have one, if it cannot be imported, or if it
    refuses the options.
    """
    point = find_plug_in(GROUP, name, "engine")
    if point is None:
        raise unknown("engine", name, list_engines())
    executor: Executor = make_plug_in(point, "engine", options)
    return executor


def refuse_cluster_options(engine: str, options: EngineOptions) -> None:
    """Raise ``InputError`` for options of a cluster, which ``engine`` does not have."""
    if options.cluster:
        raise InputError(f"--engine {engine} has no --cluster options; remove {', '.join(options.cluster)}")


def refuse_scheduler(options: EngineOptions) -> None:
    """Raise ``InputError`` for the address of a scheduler, which only Dask has."""
    if options.scheduler is not None:
        raise InputError("--scheduler ADDRESS and --engine dask belong together; give both or neither")


def refuse_number_of_stacked_runs(engine: str, options: EngineOptions, why: str) -> None:
    """Raise ``InputError`` for a number of runs to train together, which ``engine`` cannot do; ``why`` says so."""
    if options.stacking.most > 1 and not options.stacking.automatic:
        raise InputError(f"--stack N and --engine {engine} cannot be combined: {why}")
