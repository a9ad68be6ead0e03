"""Execute the follow-ups of a study: evaluations of finished runs, and their stored features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from shipbench.cli.evaluate import images_in_words, say_note, say_warning
from shipbench.errors import StoreError, one_line
from shipbench.runtime.console import say, show_traceback

if TYPE_CHECKING:
    from shipbench.planning.study.follow_ups import FollowUpSection, Outputs


def execute_follow_ups(sections: Sequence[FollowUpSection], results: Path) -> int:
    """Make the outputs that are left, one run after the other in this process; return for how many runs that failed.

    A failure stops no other run. Raises ``StoreError`` if the results folder cannot be written to.
    """
    return sum(_execute(section, results) for section in sections)


def _execute(section: FollowUpSection, results: Path) -> int:
    part, finished, failed = section.requested.part, section.done, 0
    possible = section.count - sum(outputs.count for outputs in section.refused)
    if section.refusal:
        say(section.refusal)
    for outputs in section.outputs:
        if not outputs.left:
            continue
        try:
            for content in _made(outputs, results):
                finished += 1
                say(f"{part.name} [{finished}/{possible}] {outputs.run.run_id} {outputs.run.title}: {content}")
        except StoreError:
            raise
        except Exception as error:
            # As with the runs of a grid: a claim that was lost, or a device without memory, ends this output alone.
            show_traceback()
            failed += 1
            say(f"{part.name}: run {outputs.run.run_id} FAILED: {one_line(error)}")
    return failed


def _made(outputs: Outputs, results: Path) -> Iterator[str]:
    """Make the outputs of one run that do not exist; after each of them, yield what it holds, in words."""
    if outputs.evaluation is None:
        _store_features(outputs, results)
        yield "features of its test images"
        return
    from shipbench.runs.evaluate import execute_evaluation

    planned = outputs.evaluation
    say_warning(planned.images)
    existing = {run_id for run_id in planned.run_ids if planned.stored(run_id) is not None}
    for record in execute_evaluation(planned, listener=say_note):
        if record.run_id not in existing:
            yield images_in_words(planned.parent, record)


def _store_features(outputs: Outputs, results: Path) -> None:
    from shipbench.explaining.explain import ExplainOptions, plan_explanation, store_features
    from shipbench.planning.study.follow_ups import own_task
    from shipbench.results.store import Store

    spec = outputs.run.spec
    options = ExplainOptions(on=own_task(spec), data=spec.data, checkpoint=spec.checkpoint, device=spec.device)
    planned = plan_explanation(Store(results), outputs.run.run_id, options, features=True)
    say_warning(planned.test_images)
    store_features(planned)
