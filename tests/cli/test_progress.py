"""Displays of events: plain lines for logs, progress bars on a terminal."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from shipbench import RunSpec
from shipbench.cli.progress import LiveDisplay, PlainDisplay, make_display
from shipbench.events import EpochDone, Event, Finished, Lost, Note, Started
from shipbench.planning.plan import PlannedRun, State
from tests.results.test_store import make_record

RUN = PlannedRun(RunSpec("linear", "dtd", overrides={"epochs": 20}), "a1", State.TO_DO)
RECORD = make_record(run_id="a1", final_test_acc=0.5, train_seconds=2.0, eval_seconds=1.0)
EVENTS: list[Event] = [
    Note(None, "measuring this machine"),
    Started("a1"),
    Note("a1", "12 semantic levels"),
    EpochDone("a1", 0, 20, 1.5, 0.1, 2.0, 100),
    EpochDone("a1", 1, 20, 1.25, 0.1, 2.0, 100, accuracy=0.25),
    Lost("a1"),
    Finished("a1", RECORD),
]


def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with make_display([RUN]) as display:
        assert isinstance(display, PlainDisplay)
        for event in EVENTS:
            display(event)
    assert capsys.readouterr().err.splitlines() == [
        "measuring this machine",
        f"a1 {RUN.title}",
        "a1   12 semantic levels",
        "a1   epoch 2/20, loss 1.250, 50 images/s, accuracy 25.0 %",
        "a1   was taken over by another process",
        f"a1 [1/1] {RUN.title}: test accuracy 50.0 %, 3 s",
    ]


def test_bars(capsys: pytest.CaptureFixture[str]) -> None:
    with LiveDisplay([RUN]) as display:
        for event in EVENTS[:-2]:
            display(event)
        assert [task.completed for task in display.progress.tasks] == [0, 2]
        # A run whose worker died starts again.
        display(Started("a1"))
        assert [task.completed for task in display.progress.tasks] == [0, 0]
        # Nothing more is heard of it.
        display(EVENTS[-2])
        assert [task.completed for task in display.progress.tasks] == [0]
        display(Started("a1"))
        display(EVENTS[-1])
        assert [task.completed for task in display.progress.tasks] == [1]
    printed = capsys.readouterr().err
    for line in ("measuring this machine", "12 semantic levels", "was taken over by another process", "50.0 %, 3 s"):
        assert line in printed


def test_lines_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    failed = make_record(run_id="b2", status="failed", error="the loss is nan")
    with make_display([RUN, replace(RUN, run_id="b2")], "json") as display:
        for event in (*EVENTS, Finished("b2", failed)):
            display(event)
    named = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [event["event"] for event in named] == ["note", "started", "note", *["epoch"] * 2, "lost", *["finished"] * 2]
    assert named[4] == {
        **{"event": "epoch", "run_id": "a1", "epoch": 2, "epochs": 20, "train_loss": 1.25, "learning_rate": 0.1},
        **{"images_per_second": 50.0, "accuracy": 0.25},
    }
    assert [(event["finished"], event["runs"], event["error"]) for event in named[-2:]] == [
        (1, 2, ""),
        (2, 2, "the loss is nan"),
    ]


@pytest.mark.parametrize(("progress", "kind"), [("auto", LiveDisplay), ("plain", PlainDisplay)])
def test_a_terminal_has_bars_unless_lines_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, progress: str, kind: type[object]
) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, force_interactive=True)
    monkeypatch.setattr("shipbench.cli.progress.err_console", lambda: terminal)
    with make_display([RUN], progress) as display:
        assert isinstance(display, kind)


def test_a_failed_run_shows_its_error(capsys: pytest.CaptureFixture[str]) -> None:
    PlainDisplay([RUN])(Finished("a1", make_record(run_id="a1", status="failed", error="the loss is nan")))
    assert capsys.readouterr().err.endswith("FAILED: the loss is nan\n")
