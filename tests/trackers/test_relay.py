"""A tracker that raises, hangs or falls behind is reported once, and delays nothing."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shipbench.events import Finished, Listener, Lost, Note, Started
from shipbench.results.store import RunTables, Store
from shipbench.runtime import exits
from shipbench.trackers import relay as relay_module
from shipbench.trackers.interface import OpenRun, Outcome, TrackedRun, TrackerOptions
from shipbench.trackers.outcome import outcome
from shipbench.trackers.relay import Relay
from tests.trackers.builders import RUN, epochs, relay, stored_record

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "entry-points.md"


class Recorder:
    """A tracker, and the runs it opens, that keep what they receive."""

    where = "in memory"

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def check(self) -> None:
        pass

    def open(self, run: TrackedRun) -> OpenRun:
        self.calls.append(("open", run.run_id, run.fresh))
        return self

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        self.calls.append(("log", epoch, dict(values)))

    def note(self, text: str) -> None:
        self.calls.append(("note", text))

    def finish(self, outcome: Outcome) -> None:
        accuracy = outcome.numbers.get("final_test_acc")
        self.calls.append(("finish", outcome.record.run_id, accuracy, len(outcome.files)))

    def close(self) -> None:
        self.calls.append(("close",))


class Failing(Recorder):
    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        raise SystemExit("the network is gone")


class Hanging(Recorder):
    def open(self, run: TrackedRun) -> OpenRun:
        threading.Event().wait(60)
        return self


def train(listen: Listener) -> None:
    """Send the start of a run and its first epoch, at which a tracker opens it."""
    for event in (Started("a1"), *epochs(1, 1)):
        listen(event)


@pytest.fixture(autouse=True)
def _this_process_ends_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exits, "_expected", [])


def test_every_event_of_a_run(tmp_path: Path) -> None:
    record, tracker, lines = stored_record(tmp_path), Recorder(), list[str]()
    with relay(tracker, tmp_path, lines) as listen:
        for event in (Note(None, "a machine"), Started("a1"), Note("a1", "12 levels"), *epochs(1, 1)):
            listen(event)
        # Its worker died, and another one starts from the checkpoint.
        for event in (Started("a1"), *epochs(1, 2), Finished("a1", record)):
            listen(event)
    values = {"train_loss": 1.0, "learning_rate": 0.1, "train_images_per_second": 50.0, "test_acc": 0.01}
    assert tracker.calls == [
        ("open", "a1", True),
        ("note", "12 levels"),
        ("log", 1, values),
        ("log", 2, {**values, "train_loss": 0.5, "test_acc": 0.02}),
        ("finish", "a1", 0.75, 2),
    ]
    assert lines == ["it: in memory"]


def test_the_tracker_of_the_documentation_writes_a_line_for_each_event(tmp_path: Path) -> None:
    (code,) = re.findall(r'```python title="line_tracker.py"\n(.*?)```', PAGE.read_text(encoding="utf-8"), re.DOTALL)
    module: dict[str, Any] = {}
    exec(code, module)
    record, lines = stored_record(tmp_path), list[str]()
    with relay(module["LineTracker"](TrackerOptions(tmp_path)), tmp_path, lines) as listen:
        for event in (Started("a1"), Note("a1", "12 levels"), *epochs(1, 2), Finished("a1", record)):
            listen(event)
    assert lines == [f"it: {tmp_path / 'epochs.txt'}"]
    written = (tmp_path / "epochs.txt").read_text().splitlines()
    assert [line.partition(": ")[0] for line in written] == ["a1 12 levels", "a1 epoch 1", "a1 epoch 2", "a1 done"]


@pytest.mark.parametrize("first", [1, 2])
def test_only_a_run_that_trains_from_its_first_epoch_is_fresh(first: int, tmp_path: Path) -> None:
    tracker = Recorder()
    with relay(tracker, tmp_path, []) as listen:
        for event in (Started("a1"), *epochs(first, 3)):
            listen(event)
    assert tracker.calls[0] == ("open", "a1", first == 1)
    assert [call[1] for call in tracker.calls if call[0] == "log"] == list(range(first, 4))


def test_a_run_that_comes_back_and_starts_over_has_all_of_its_epochs(tmp_path: Path) -> None:
    tracker = Recorder()
    with relay(tracker, tmp_path, []) as listen:
        for event in (Started("a1"), *epochs(1, 2), Lost("a1"), Started("a1"), *epochs(1, 3)):
            listen(event)
    assert [call[:2] for call in tracker.calls] == [
        *[("open", "a1"), ("log", 1), ("log", 2), ("close",)],
        *[("open", "a1"), ("log", 1), ("log", 2), ("log", 3), ("close",)],
    ]


@pytest.mark.parametrize("end", [[], [Lost("a1")]], ids=["interrupted", "taken over"])
def test_a_run_without_an_end_is_closed(end: list[Lost], tmp_path: Path) -> None:
    tracker = Recorder()
    with relay(tracker, tmp_path, []) as listen:
        for event in (Started("a1"), *epochs(2, 2), *end):
            listen(event)
    assert [call[0] for call in tracker.calls] == ["open", "log", "close"]


@pytest.mark.parametrize("end", [[], [Lost("a1")]], ids=["interrupted", "taken over"])
def test_a_run_that_stops_before_its_first_epoch_is_not_sent(end: list[Lost], tmp_path: Path) -> None:
    tracker = Recorder()
    with relay(tracker, tmp_path, []) as listen:
        for event in (Started("a1"), Note("a1", "12 levels"), *end):
            listen(event)
    assert tracker.calls == []


def test_a_run_that_fails_before_its_first_epoch_is_sent_with_its_notes(tmp_path: Path) -> None:
    tracker, record = Recorder(), stored_record(tmp_path, status="failed", error="no such image")
    with relay(tracker, tmp_path, []) as listen:
        for event in (Started("a1"), Note("a1", "12 levels"), Finished("a1", record)):
            listen(event)
    assert tracker.calls[:2] == [("open", "a1", False), ("note", "12 levels")]
    assert [call[0] for call in tracker.calls[2:]] == ["finish"]


def test_a_run_of_another_process_is_left_to_it(tmp_path: Path) -> None:
    tracker = Recorder()
    with relay(tracker, tmp_path, []) as listen:
        listen(Finished("a1", stored_record(tmp_path)))
    assert tracker.calls == []


def test_a_failing_tracker_is_said_once(tmp_path: Path) -> None:
    lines: list[str] = []
    with relay(Failing(), tmp_path, lines) as listen:
        for event in (Started("a1"), *epochs(1, 3)):
            listen(event)
    assert lines == [
        f"it failed (the network is gone); nothing more is sent there, and the records in {tmp_path} stay complete"
    ]


def test_a_failing_tracker_stops_no_other_wherever_it_fails(tmp_path: Path) -> None:
    class Nowhere(Recorder):
        @property
        def where(self) -> str:  # type: ignore[override]
            raise OSError("no place")

    lines: list[str] = []
    trackers = {"failing": Failing(), "nowhere": Nowhere(), "it": Recorder()}
    record = stored_record(tmp_path, status="failed", error="out of memory", final_test_acc=float("nan"))
    with Relay(trackers, {"a1": replace(RUN, config={"protocol": "tuning"})}, tmp_path, lines.append) as listen:
        for event in (Started("a1"), *epochs(1, 2), Finished("a1", record)):
            listen(event)
    kept = f"nothing more is sent there, and the records in {tmp_path} stay complete"
    assert sorted(lines) == [
        f"failing failed (the network is gone); {kept}",
        "it: in memory",
        f"nowhere failed (no place); {kept}",
    ]
    assert [call[0] for call in trackers["it"].calls] == ["open", "log", "log", "finish"]
    assert trackers["it"].calls[1][2]["val_acc"] == 0.01
    assert "final_test_acc" not in outcome(record, tmp_path).numbers
    assert outcome(record, tmp_path).figures() == {}
    assert outcome(stored_record(tmp_path, protocol="tuning"), tmp_path).figures() == {}


def test_the_numbers_and_the_figures_of_a_run_on_few_classes(tmp_path: Path) -> None:
    facts = {"suite": "demo", "task": "digits", "num_classes": 3, "train_seconds": 12.5, "host": "a machine"}
    record = stored_record(tmp_path, final_test_acc=0.5, **facts)
    predictions = {"index": [0, 1], "label": [0, 2], "predicted": [0, 1], "confidence": [0.5, 0.5]}
    Store(tmp_path).write(record, RunTables(predictions=predictions))
    numbers = outcome(record, tmp_path).numbers
    assert (numbers["final_test_acc"], numbers["train_seconds"]) == (0.5, 12.5)
    assert not numbers.keys() & {"best_test_acc", "host", "seed"}
    assert {name.partition("-")[0] for name in outcome(record, tmp_path).figures()} == {"affinity", "confusion"}


def test_hanging_trackers_share_the_grace(tmp_path: Path) -> None:
    lines: list[str] = []
    before = time.monotonic()
    with Relay({f"it-{n}": Hanging() for n in range(40)}, {"a1": RUN}, tmp_path, lines.append, grace=0.5) as listen:
        train(listen)
    # One after the other, they would take 20 seconds.
    assert time.monotonic() - before < 10
    assert len(lines) == 40


def test_a_hanging_tracker_is_left_behind(tmp_path: Path) -> None:
    lines: list[str] = []
    before = time.monotonic()
    with relay(Hanging(), tmp_path, lines, grace=0.1) as listen:
        for event in (Started("a1"), *epochs(1, 3)):
            listen(event)
    assert time.monotonic() - before < 10
    assert len(lines) == 1
    assert lines[0].startswith("it did not finish within 0.1 s; nothing more is sent there")


class Slow(Recorder):
    """A tracker that finishes once it is ``awaited``."""

    def __init__(self) -> None:
        super().__init__()
        self.awaited = threading.Event()

    def finish(self, outcome: Outcome) -> None:
        self.awaited.wait(60)
        super().finish(outcome)


def test_a_slow_tracker_is_awaited_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "SILENT_SECONDS", 0.1)
    monkeypatch.setattr(relay_module, "STOPPED_SECONDS", 0.1)
    tracker, lines, record = Slow(), list[str](), stored_record(tmp_path)

    def say(line: str) -> None:
        lines.append(line)
        tracker.awaited.set()

    with Relay({"it": tracker}, {"a1": RUN}, tmp_path, say, grace=60) as listen:
        for event in (Started("a1"), Finished("a1", record)):
            listen(event)
    assert lines == ["waiting for it, at most 60 s", "it: in memory"]
    assert [call[0] for call in tracker.calls] == ["open", "finish"]


def test_a_stopped_command_waits_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "STOPPED_SECONDS", 0.1)
    lines = list[str]()

    def stop() -> None:
        with relay(Hanging(), tmp_path, lines) as listen:
            train(listen)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    (line,) = lines
    assert line.startswith("it did not finish within 0.1 s; nothing more is sent there")


def test_an_interruption_ends_the_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(relay_module, "SILENT_SECONDS", 0.1)
    before = sys.stdout
    with pytest.raises(KeyboardInterrupt), Relay({"it": Hanging()}, {"a1": RUN}, tmp_path, interrupt) as listen:
        train(listen)
    assert sys.stdout is before
    # The library may hang at the end of the process too.
    assert exits._expected


def test_waiting_events_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "CAPACITY", 4)
    lines: list[str] = []
    listen = relay(Hanging(), tmp_path, lines, grace=0.0)
    for event in epochs(1, 9):
        listen(event)
    assert len(lines) == 1
    assert lines[0].startswith("it does not respond: 4 events are waiting")
    assert listen.feeds[0].queue.qsize() == 4


def test_what_a_tracker_prints_stays_off_standard_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Talkative(Recorder):
        def note(self, text: str) -> None:
            print("initialised!")

    with relay(Talkative(), tmp_path, []) as listen:
        print("a result")
        for event in (Started("a1"), Note("a1", "x"), *epochs(1, 1)):
            listen(event)
    assert capsys.readouterr().out == "a result\n"
    assert sys.stdout.writable()
