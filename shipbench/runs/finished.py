"""Finished runs: their records and stored weights, looked up without torch."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from shipbench.backbones.pinned import RANDOM, check_checkpoint
from shipbench.errors import InputError, did_you_mean, one_line
from shipbench.record import EVALUATED, TRAINED, RunRecord
from shipbench.results.lookup import run_ids
from shipbench.results.store import Store
from shipbench.tasks.catalogue import Resize


def weights_of(store: Store, record: RunRecord) -> Path:
    """Return the file with the weights of a finished training run.

    Raises ``InputError`` for a run that keeps no weights: full fine-tuning, unless it was asked to keep the whole
    model.
    """
    source = store.path("weights", record.run_id)
    if source.exists():
        return source
    run = f"run {record.run_id} ({record.method})"
    if _trains_everything(record):
        raise InputError(
            f"{run} keeps no weights, because it trains the whole backbone; repeat it with --force --keep-weights full"
        )
    raise InputError(f"{run} has lost its weights: {source} is missing; repeat it with --force")


def trained_record(store: Store, run_id: str) -> RunRecord:
    """Return the record of a finished training run; raise ``InputError`` for one that is unknown, failed or no such."""
    record = store.read(run_id)
    if record is None:
        raise InputError(f"there is no run {run_id!r} in {store.root}{did_you_mean(run_id, run_ids(store.root))}")
    if record.kind == EVALUATED:
        raise InputError(f"{run_id} is an evaluation of run {record.parent_run}, which has the weights; name that run")
    if record.kind != TRAINED:
        raise InputError(f"record {run_id} is {record.kind}, so it has no weights here; name a run of shipbench")
    if not record.done:
        raise InputError(f"run {run_id} failed ({record.error}), so it has no weights; repeat it with --retry-failed")
    return record


def tested_record(store: Store, run_id: str) -> RunRecord:
    """Return the record of a finished run that was tested; raise ``InputError`` for any other."""
    record = trained_record(store, run_id)
    if record.protocol != "final":
        raise InputError(f"run {run_id} is a trial of a tuning, which never opens the test split; name a tested run")
    return record


def checkpoint_of(record: RunRecord, checkpoint: str | None) -> str | None:
    """Return the backbone's weights to load for a run.

    ``checkpoint`` is the file that the user named. Raises ``InputError`` if that does not exist, or if the run used a
    file that is not named.
    """
    if checkpoint is None and record.checkpoint not in ("", RANDOM):
        raise InputError(
            f"run {record.run_id} was trained on the weights in {record.checkpoint}; name that file with --checkpoint"
        )
    check_checkpoint(checkpoint)
    return RANDOM if checkpoint is None and record.checkpoint == RANDOM else checkpoint


def checkpoint_to_rebuild(record: RunRecord, checkpoint: str | None) -> str | None:
    """Return the backbone's weights on which to rebuild a run's model, as ``checkpoint_of`` does.

    A run that trained the whole backbone needs none: its own weights replace them.
    """
    return checkpoint if _trains_everything(record) else checkpoint_of(record, checkpoint)


def checkpoint_to_predict(record: RunRecord) -> str:
    """Return the value of ``--checkpoint`` with which ``shipbench predict`` needs an exported run; empty without."""
    return "" if _trains_everything(record) else record.checkpoint


def _trains_everything(record: RunRecord) -> bool:
    return 0 < record.total_params == record.trainable_params


def resize_of(weights: Path) -> Resize:
    """Return how the images of a run became squares, from the metadata of its weights.

    Raises ``InputError`` if the file is damaged.
    """
    try:
        with safe_open(weights, framework="numpy") as stream:
            return "crop" if (stream.metadata() or {}).get("resize") == "crop" else "squash"
    except SafetensorError as error:
        raise InputError(f"{weights} cannot be read: {one_line(error)}; repeat the run with --force") from error
