"""Trackers beside the display of a plan: both receive every event."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from shipbench.cli.options import GridOptions
from shipbench.events import Event, Listener, Note
from shipbench.planning.plan import Plan, PlannedRun
from shipbench.trackers.interface import TrackedRun
from shipbench.trackers.relay import Relay


@contextmanager
def tracked(plan: Plan, options: GridOptions, display: Listener) -> Iterator[Listener]:
    """Yield a listener for ``display`` and the trackers of ``--track``; wait for these at the end, a few seconds."""
    trackers = options.trackers()
    if not trackers:
        yield display
        return
    runs = {run.run_id: TrackedRun(run.run_id, run.title, _config(run), run.fresh) for run in plan.chosen}
    with Relay(trackers, runs, options.results, lambda line: display(Note(None, line))) as relay:

        def listen(event: Event) -> None:
            relay(event)
            display(event)

        yield listen


def _config(run: PlannedRun) -> dict[str, Any]:
    resolved = run.spec.resolved
    task = resolved.task
    facts = {
        "run_id": run.run_id,
        "method": resolved.method.name,
        "switches": resolved.switches,
        "task": task.name,
        "suite": task.suite,
        "group": task.group,
        "shots": run.spec.shots or 0,
        "seed": run.spec.seed,
        "protocol": run.spec.protocol,
        "recipe": run.spec.recipe,
        "backbone": resolved.backbone,
        "backbone_sha256": run.backbone_sha256,
        "data_fingerprint": run.data_fingerprint,
    }
    return facts | {f"cfg.{name}": value for name, value in resolved.config.items()}
