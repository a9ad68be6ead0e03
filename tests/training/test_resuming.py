"""A run that was interrupted and resumed equals an uninterrupted one, bit for bit."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from shipbench import RunSpec, run
from shipbench.events import Emitter, EpochDone, Event, Note
from shipbench.runs import checkpoints
from shipbench.runs.checkpoints import Checkpoint
from shipbench.training.history import EpochReport
from shipbench.training.snapshot import Snapshot, copied_state, restore
from tests.data.builders import vtab_tree
from tests.training.interruptions import assert_same_results, interrupted

EPOCHS = 4
PACKAGES = ("torch", "timm", "pillow")


@pytest.fixture
def spec(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunSpec]:
    monkeypatch.setenv("SHIPBENCH_CHECKPOINT_SECONDS", "0")
    data = vtab_tree(tmp_path / "data", tasks=("dtd",))

    def make(method: str, **overrides: Any) -> RunSpec:
        settings = {"image_size": 64, "epochs": EPOCHS, "batch_size": 4, "eval_every": 1, **overrides}
        return RunSpec(
            method=method, task="dtd", backbone="test_vit", checkpoint="random", data=data, overrides=settings
        )

    return make


class Notes:
    """A listener that keeps the texts of notes."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, event: Event, /) -> None:
        if isinstance(event, Note):
            self.texts.append(event.text)


@pytest.mark.parametrize(
    ("method", "overrides"),
    [
        ("ship", {"drop_path": 0.3}),
        ("vpt-deep", {"drop_path": 0.3, "dropout": 0.2}),
        ("full", {"drop_path": 0.3}),
        ("linear", {"optimizer": "sgd"}),
    ],
)
def test_a_resumed_run_equals_one_that_was_never_interrupted(
    spec: Callable[..., RunSpec], tmp_path: Path, method: str, overrides: dict[str, Any]
) -> None:
    wanted = spec(method, **overrides)
    run(wanted, results=tmp_path / "whole")
    for after in (1, 3):
        interrupted(wanted, tmp_path / "resumed", after)
    notes = Notes()
    run(wanted, results=tmp_path / "resumed", listener=notes)
    assert any("resumes after epoch 3 of 4" in text for text in notes.texts), notes.texts
    assert_same_results(tmp_path / "whole", tmp_path / "resumed")
    assert not list((tmp_path / "resumed" / "checkpoints").iterdir())


def test_a_snapshot_holds_the_state_of_the_generator_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two GPUs, whose generators are at 7 and 8.
    states = {index: torch.tensor([7 + index], dtype=torch.uint8) for index in (0, 1)}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[device.index].clone())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: states.update({device.index: state}))
    model, order, device = torch.nn.Linear(2, 2), torch.Generator(), torch.device("cuda", 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tensors = copied_state(model, optimizer, order, device)
    states[0], states[1] = torch.zeros(1, dtype=torch.uint8), torch.zeros(1, dtype=torch.uint8)
    restore(tensors, model, optimizer, order, device)
    assert [int(state) for state in states.values()] == [0, 8]


def test_force_starts_over(spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    interrupted(spec("linear"), tmp_path / "r", 2)
    events: list[Event] = []
    run(spec("linear"), results=tmp_path / "r", force=True, listener=events.append)
    assert [event.epoch for event in events if isinstance(event, EpochDone)] == list(range(EPOCHS))


def test_a_checkpoint_of_another_run_is_not_used(spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    foreign = interrupted(spec("linear", lr=0.5), tmp_path / "a", 2)
    foreign.replace(interrupted(spec("linear"), tmp_path / "b", 2))
    notes = Notes()
    run(spec("linear"), results=tmp_path / "b", listener=notes)
    assert any("its run_id is" in text and "starts over" in text for text in notes.texts)
    run(spec("linear"), results=tmp_path / "whole")
    assert_same_results(tmp_path / "whole", tmp_path / "b")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VERSION", "0.0.1"),
        ("git_commit", lambda: "another"),
        *(("version", lambda package, old=old: "0.1" if package == old else version(package)) for old in PACKAGES),
        ("FORMAT", "of another day"),
    ],
)
def test_a_checkpoint_of_other_code_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    file, notes = tmp_path / "a1.safetensors", Notes()
    report = EpochReport(0, 2, 0.5, 0.1, 1.0, 4)

    def checkpoint(device: str = "cpu", **releases: str) -> Checkpoint:
        return Checkpoint(file, torch.device(device), Emitter("a1", notes), releases)

    monkeypatch.setenv("SHIPBENCH_CHECKPOINT_SECONDS", "0")
    checkpoint().offer(lambda: Snapshot({"step": torch.zeros(1)}, (report,), (0, 0)), {})
    assert checkpoint().read() is not None
    assert checkpoint("meta").read() is None
    assert checkpoint(peft="0.20").read() is None
    monkeypatch.setattr(checkpoints, name, value)
    assert checkpoint().read() is None
    assert [text.partition(" (")[0] for text in notes.texts[1:]] == ["the checkpoint of this run cannot be used"] * 3


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Return a file's content truncated or with one bit flipped, at random, in its header or anywhere."""
    header = 8 + int.from_bytes(content[:8], "little")
    place = chance.randrange(chance.choice([header, len(content)]))
    if chance.random() < 0.3:
        return content[:place]
    return content[:place] + bytes([content[place] ^ 1 << chance.randrange(5)]) + content[place + 1 :]


@pytest.mark.parametrize("method", ["linear", "ship"])
def test_no_damage_to_a_checkpoint_goes_unnoticed(spec: Callable[..., RunSpec], tmp_path: Path, method: str) -> None:
    file = interrupted(spec(method), tmp_path / "r", 2)
    notes = Notes()
    checkpoint = Checkpoint(file, torch.device("cpu"), Emitter(file.stem, notes), {})
    content, chance = file.read_bytes(), random.Random(2)
    assert checkpoint.read() is not None
    for _ in range(100):
        notes.texts.clear()
        file.write_bytes(damaged(content, chance))
        assert checkpoint.read() is None
        assert "the run starts over" in notes.texts[0]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="this system does not list mapped files")
def test_on_windows_a_checkpoint_can_be_replaced_while_its_tensors_are_used(
    spec: Callable[..., RunSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It replaces no file that is mapped."""
    monkeypatch.setattr(checkpoints, "sys", SimpleNamespace(platform="win32"))
    file = interrupted(spec("linear"), tmp_path / "r", 2)
    progress = Checkpoint(file, torch.device("cpu"), Emitter(file.stem, Notes()), {}).read()
    assert progress is not None
    assert str(file) not in Path("/proc/self/maps").read_text()


def test_a_run_with_a_damaged_checkpoint_starts_over(spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    run(spec("linear"), results=tmp_path / "whole")
    chance = random.Random(3)
    for number in range(5):
        results = tmp_path / f"r{number}"
        checkpoint = interrupted(spec("linear"), results, 2)
        checkpoint.write_bytes(damaged(checkpoint.read_bytes(), chance))
        notes = Notes()
        run(spec("linear"), results=results, listener=notes)
        assert any("the run starts over" in text for text in notes.texts), notes.texts
        assert_same_results(tmp_path / "whole", results)


def test_short_epochs_are_not_all_kept(
    spec: Callable[..., RunSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHIPBENCH_CHECKPOINT_SECONDS", "60")
    run(spec("linear"), results=tmp_path / "r")
    assert not (tmp_path / "r" / "checkpoints").exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_takes_no_checkpoint_stops_no_run(spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    (tmp_path / "r" / "checkpoints").mkdir(parents=True)
    (tmp_path / "r" / "checkpoints").chmod(0o500)
    notes = Notes()
    assert run(spec("linear"), results=tmp_path / "r", listener=notes).done
    assert any("no checkpoint can be written" in text for text in notes.texts)


def test_a_file_in_place_of_the_checkpoints_stops_no_run(spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "checkpoints").write_text("")
    notes = Notes()
    assert run(spec("linear"), results=tmp_path / "r", listener=notes).done
    assert sum("no checkpoint can be written" in text for text in notes.texts) == 1
