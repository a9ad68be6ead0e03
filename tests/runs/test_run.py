"""Runs beside other processes: ``shipbench.run`` in Python, and what an attempt stores when it is not alone."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars  # type: ignore[attr-defined]
from safetensors.torch import save

from shipbench import RunSpec, run
from shipbench.backbones import Preprocessing, load_backbone
from shipbench.data.vtab import fingerprints
from shipbench.engine import attempt
from shipbench.errors import InputError
from shipbench.events import Emitter, EpochDone, Event, Finished, Lost, Note, Started
from shipbench.hardware import determinism
from shipbench.hardware.precision import ComputeContext
from shipbench.planning.plan import PlannedRun, State
from shipbench.record import RunRecord
from shipbench.results import claims
from shipbench.results.claims import ClaimLostError
from shipbench.results.store import Store
from shipbench.runs import run as runs_module
from shipbench.runs import session as session_module
from shipbench.runs.preparation import prepare
from shipbench.runs.recording import _scores, blank_record, mean_class_accuracy, unprepared_record
from shipbench.runs.session import Session, claimed
from shipbench.training.history import EpochReport, Evaluation, Fit
from tests.data.builders import vtab_tree
from tests.hub import local_hub
from tests.results.stale_lookups import hide_until_its_folder_changes
from tests.results.test_store import make_record

SPEC = RunSpec("linear", "dtd", seed=1)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A results folder for run a1, and others called after their seeds.

    They need no preparation and store a record of this host when executed.
    """

    def execute(session: Session, prepared: object) -> RunRecord:
        session.confirm()
        record = make_record(run_id=session.emitter.run_id, host="here")
        session.store.write(record)
        return record

    monkeypatch.setattr(runs_module, "prepare", lambda spec: SimpleNamespace(run_id=f"a{spec.seed}"))
    monkeypatch.setattr(Session, "execute", execute)
    return Store(tmp_path / "r")


def other_process(store: Store, monkeypatch: pytest.MonkeyPatch, status: str | None) -> None:
    """Let another process hold the claim until this one waits; then release it, possibly with a record."""
    claim = claims.take(store.root, "a1")
    assert claim is not None

    def end(_: float) -> None:
        if status:
            store.write(make_record(host="there", status=status))
        claims.revoke(store.root, "a1")

    monkeypatch.setattr(claims.time, "sleep", end)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(("status", "host"), [("done", "there"), ("failed", "here"), (None, "here")])
def test_a_run_that_another_process_executes_is_waited_for(
    store: Store, monkeypatch: pytest.MonkeyPatch, force: bool, status: str | None, host: str
) -> None:
    other_process(store, monkeypatch, status)
    events: list[Event] = []
    record = run(SPEC, results=store.root, force=force, listener=events.append)
    assert record.host == host
    waiting, *others = events
    assert isinstance(waiting, Note)
    assert waiting.run_id == "a1"
    assert waiting.text.startswith("another process (")
    assert waiting.text.endswith(") is executing this run; waiting for it")
    assert others == ([] if host == "there" else [Started("a1"), Finished("a1", record)])
    stored = store.read("a1")
    assert stored is not None
    assert stored.host == host
    assert claims.holder(store.root, "a1") is None


def test_waiting_prints_nothing_without_a_listener(
    store: Store, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    other_process(store, monkeypatch, None)
    assert run(SPEC, results=store.root).host == "here"
    assert capfd.readouterr() == ("", "")


def test_a_run_fetches_weights_of_the_hub_without_a_word(
    tmp_path: Path, cache: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, name = vtab_tree(tmp_path / "data", tasks=("dtd",)), "test_vit.r160_in1k"
    # The client draws bars then without a terminal, too.
    monkeypatch.setenv("TQDM_POSITION", "-1")
    enable_progress_bars()
    weights = save(timm.create_model(name, num_classes=1000).state_dict())
    spec = RunSpec("linear", "dtd", backbone=name, data=data, overrides={"image_size": 64, "epochs": 1})
    with local_hub(tmp_path / "hub") as hub:
        hub.repositories[f"models/timm/{name}"] = {"model.safetensors": weights}
        load_backbone(name)
        assert "model.safetensors" in capfd.readouterr().err
        shutil.rmtree(tmp_path / "hub")
        assert run(spec).done
        assert capfd.readouterr() == ("", "")
        assert len(hub.downloads()) == 2
    assert not are_progress_bars_disabled()


@pytest.mark.parametrize("method", ["linear", "ship"])
def test_a_run_prints_nothing_and_tells_its_listener_everything(
    method: str, tmp_path: Path, cache: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Files this young are not remembered otherwise.
    monkeypatch.setattr(fingerprints, "TICK_NS", 0)
    data = vtab_tree(tmp_path / "data", tasks=("dtd",))
    settings = {"image_size": 64, "epochs": 2}
    spec = RunSpec(method, "dtd", backbone="test_vit", checkpoint="random", data=data, overrides=settings)
    events: list[Event] = []
    record = run(spec, results=tmp_path / "a", listener=events.append)
    # With images and features to prepare again.
    cache.rename(tmp_path / "used")
    assert run(spec, results=tmp_path / "b").done
    assert run(spec).done
    assert capfd.readouterr() == ("", "")
    assert any(isinstance(event, Note) and event.run_id is None and "decoding" in event.text for event in events)
    kinds = [type(event) for event in events if not isinstance(event, Note)]
    assert kinds == [Started, EpochDone, EpochDone, Finished]
    assert events[-1] == Finished(record.run_id, record)
    last = next(event for event in reversed(events) if isinstance(event, EpochDone))
    assert (last.run_id, last.epoch, last.epochs, last.accuracy) == (record.run_id, 1, 2, record.final_test_acc)
    epochs = [event for event in events if isinstance(event, EpochDone)]
    assert record.train_seconds == sum(epoch.train_seconds for epoch in epochs)
    assert record.train_images_per_second == sum(epoch.images for epoch in epochs) / record.train_seconds
    assert record.eval_images_per_second == record.n_test / record.eval_seconds
    events.clear()
    assert run(spec, results=tmp_path / "a", listener=events.append).run_id == record.run_id
    assert not events


def test_validation_and_test_images_are_scored_by_both_metrics() -> None:
    # Three quarters of the images are right, and one class of two.
    labels, evaluation = torch.tensor([0, 0, 0, 1]), Evaluation(0.5, 0.75, torch.zeros(4).long(), torch.ones(4))
    fit = Fit([EpochReport(0, 1, 0.1, 0.1, 1.0, 4, evaluation)])
    assert _scores(fit, labels, "tuning") == {"val_acc": 0.75, "val_mean_class_acc": 0.5}
    tested = _scores(fit, labels, "final")
    assert (tested["final_test_acc"], tested["final_test_mean_class_acc"]) == (0.75, 0.5)
    assert (tested["best_test_acc"], tested["best_test_epoch"]) == (0.75, 0)
    scored = [EpochReport(i, 4, 0.1, 0.1, 1.0, 4, replace(evaluation, accuracy=a)) for i, a in enumerate((0.5, 1, 1))]
    peaked = _scores(Fit([*scored, replace(fit.epochs[0], epoch=3)]), labels, "final")
    assert (peaked["final_test_acc"], peaked["best_test_acc"], peaked["best_test_epoch"]) == (0.75, 1, 1)
    # Equal means are equal to the last digit, so that a tuning sees the tie.
    thirds, halves = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 0, 1, 1])
    right = mean_class_accuracy(thirds, torch.tensor([0, 1, 1, 1, 1, 0]))
    assert right == pytest.approx(mean_class_accuracy(halves, torch.tensor([0, 1, 1, 0])), abs=1e-15)


def test_a_recipe_may_replace_the_normalisation_of_the_backbone(tmp_path: Path, cache: Path) -> None:
    data = vtab_tree(tmp_path / "data", tasks=("dtd",))
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)

    def preprocessing(**settings: object) -> Preprocessing:
        settings = {"image_size": 64, **settings}
        return prepare(
            replace(SPEC, backbone="test_vit", checkpoint="random", data=data, overrides=settings)
        ).preprocessing

    native = preprocessing()
    assert preprocessing(mean=mean) == replace(native, mean=mean)
    assert preprocessing(std=std) == replace(native, std=std)


def test_a_record_names_the_gpu_instead_of_its_number(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: {3: "NVIDIA H200"}[device.index])
    data = vtab_tree(tmp_path / "data", tasks=("dtd",))
    spec = replace(SPEC, backbone="test_vit", checkpoint="random", data=data, device="cpu")
    prepared = prepare(spec)
    on_gpu = replace(prepared, compute=ComputeContext(torch.device("cuda:3"), "fp32"))
    assert [blank_record(each).device for each in (prepared, on_gpu)] == ["cpu", "cuda: NVIDIA H200"]
    known = {"data_fingerprint": "", "precision": "fp32"}
    planned = [replace(spec, device=name) for name in ("cuda:3", "cuda", "cpu")]
    assert [unprepared_record(each, "a1", None, **known).device for each in planned] == ["cuda", "cuda", "cpu"]


def test_what_is_no_spec_is_refused() -> None:
    with pytest.raises(InputError, match="run takes a RunSpec"):
        run("linear")  # type: ignore[arg-type]


def test_a_run_that_is_done_is_repeated_by_force_alone(store: Store) -> None:
    store.write(make_record(host="before"))
    assert run(SPEC, results=store.root).host == "before"
    assert run(SPEC, results=store.root, force=True).host == "here"


def test_a_run_that_was_taken_over_is_not_stored(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def execute(session: Session, prepared: object) -> RunRecord:
        claims.revoke(store.root, "a1")
        session.confirm()
        raise AssertionError

    monkeypatch.setattr(Session, "execute", execute)
    with pytest.raises(ClaimLostError):
        run(SPEC, results=store.root)


def test_a_run_that_was_taken_over_while_it_trained_stores_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: Any = None
    monkeypatch.setattr(session_module, "describe", lambda _: make_record())
    monkeypatch.setattr(session_module, "store_run", lambda *_: pytest.fail("was stored"))
    with claimed(store, None, Emitter("a1")) as session:
        assert session is not None
        claims.revoke(store.root, "a1")
        with pytest.raises(ClaimLostError):
            session.finish(trained)


def test_a_run_that_was_stored_since_it_was_planned_is_left_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "prepare_planned", lambda _: pytest.fail("was prepared"))
    store.write(make_record(host="there"))
    events: list[Event] = []
    attempt.attempt(PlannedRun(SPEC, "a1", State.TO_DO), store.root, events.append)
    assert events == []
    assert claims.holder(store.root, "a1") is None


def test_a_record_that_another_machine_stored_is_seen_once_the_run_is_claimed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(make_record(run_id="a1", host="another"))
    hide_until_its_folder_changes(store.path("runs", "a1"), monkeypatch)
    monkeypatch.setattr(claims, "_WAIT_SECONDS", 0.01)
    assert store.written("a1") is None
    with claimed(store, None, Emitter("a1")) as session:
        assert session is None
    assert store.written("a1") is not None
    hide_until_its_folder_changes(store.path("runs", "a1"), monkeypatch)
    assert run(SPEC, results=store.root).host == "another"
    assert [path.name for path in store.path("runs", "a1").parent.iterdir()] == ["a1.parquet"]


def test_a_folder_that_cannot_be_used_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_module, "prepare", lambda spec: pytest.fail("was prepared"))
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="cannot be written to"):
        run(SPEC, results=tmp_path / "taken")


def test_a_listener_may_start_a_run_that_another_thread_is_about_to_execute(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That thread holds no claim while it waits for its turn, which the run of the listener has."""
    prepared, started, waits = threading.Event(), threading.Event(), threading.Event()
    written, main = Store.written, threading.current_thread()

    class Turn:
        lock = threading.RLock()

        def __enter__(self) -> None:
            if started.is_set() and threading.current_thread() is not main:
                waits.set()
            self.lock.acquire()

        def __exit__(self, *_: object) -> None:
            self.lock.release()

    def written_later(store: Store, run_id: str) -> int | None:
        if threading.current_thread() is not main and not started.is_set():
            prepared.set()
            assert started.wait(30)
        return written(store, run_id)

    def start_second(event: Event, /) -> None:
        if isinstance(event, Started):
            started.set()
            assert waits.wait(30)
            run(second, results=store.root, listener=events.append)

    second, events = replace(SPEC, seed=2), list[Event]()
    monkeypatch.setattr(determinism._Turn, "lock", Turn())
    monkeypatch.setattr(Store, "written", written_later)
    monkeypatch.setattr(claims.time, "sleep", lambda _: pytest.fail("waits for a thread that waits for this one"))
    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(run, second, results=store.root)
        assert prepared.wait(30)
        assert run(SPEC, results=store.root, listener=start_second).run_id == "a1"
        assert other.result(30).run_id == "a2"
    assert [type(event) for event in events] == [Started, Finished]


def test_a_listener_starts_its_own_run_again_once_it_has_ended(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims.time, "sleep", lambda _: pytest.fail("waits for itself"))
    events: list[Event] = []

    def repeat(event: Event, /) -> None:
        events.append(event)
        if isinstance(event, kind) and len(events) < 4:
            run(SPEC, results=store.root, force=True, listener=repeat)

    kind: type[Event] = Finished
    run(SPEC, results=store.root, listener=repeat)
    assert [type(event) for event in events] == [Started, Finished, Started, Finished]
    kind = Started
    events.clear()
    with pytest.raises(InputError, match="run a1 cannot be started by its own listener"):
        run(SPEC, results=store.root, force=True, listener=repeat)
    assert events == [Started("a1")]
    assert claims.holder(store.root, "a1") is None


def attempted(store: Store) -> list[type[Event]]:
    """Attempt run a1 and return the types of its events."""
    events: list[Event] = []
    attempt.attempt(PlannedRun(SPEC, "a1", State.TO_DO), store.root, events.append)
    assert {event.run_id for event in events} == {"a1"}
    return [type(event) for event in events]


def test_a_failure_replaces_no_record_of_another_process(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: PlannedRun) -> None:
        store.write(make_record(host="there"))
        raise ValueError("diverged")

    monkeypatch.setattr(attempt, "prepare_planned", fail)
    assert attempted(store) == [Started, Lost]
    stored = store.read("a1")
    assert stored is not None
    assert (stored.status, stored.host) == ("done", "there")


def test_a_failure_of_a_run_that_was_taken_over_is_not_stored(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: PlannedRun) -> None:
        claims.revoke(store.root, "a1")
        raise ValueError("diverged")

    monkeypatch.setattr(attempt, "prepare_planned", fail)
    assert attempted(store) == [Started, Lost]
    assert store.read("a1") is None


def test_debugging_shows_the_traceback_and_changes_nothing_else(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: PlannedRun) -> None:
        raise ValueError("diverged")

    monkeypatch.setenv("SHIPBENCH_DEBUG", "1")
    monkeypatch.setattr(attempt, "prepare_planned", fail)
    assert attempted(store) == [Started, Finished]
    assert store.status("a1") == "failed"
    assert "ValueError: diverged" in capsys.readouterr().err


def test_a_checkpoint_beside_a_failed_record_belongs_to_a_later_attempt(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever a failing run is killed, its checkpoint has been removed before its record is written."""
    checkpoint = store.path("checkpoints", "a1")
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    monkeypatch.setattr(Store, "write", lambda *_: pytest.fail("killed") if not checkpoint.exists() else None)
    with pytest.raises(pytest.fail.Exception, match="killed"):
        attempt.give_up(PlannedRun(SPEC, "a1", State.TO_DO), store.root, "its process died")
