"""``shipbench evaluate``: finished runs on other images of the same classes, and on corrupted ones."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from shipbench import RunSpec, load_results
from shipbench.cli import app
from shipbench.cli import evaluate as evaluate_command
from shipbench.cli.follow_ups import execute_follow_ups
from shipbench.data.corruptions import Corruption
from shipbench.data.framing import resize
from shipbench.data.types import Identity, NativeSplit
from shipbench.errors import InputError
from shipbench.events import Event, Note
from shipbench.explaining.explain import ExplainOptions, plan_explanation
from shipbench.planning.plan import PlannedRun, State
from shipbench.planning.study.file import EvaluatePart
from shipbench.planning.study.follow_ups import FollowUpSection, plan_follow_up, request_follow_up
from shipbench.record import MEAN_PER_CLASS, RunRecord
from shipbench.results.claims import ClaimLostError, revoke, take
from shipbench.results.loading import load_predictions
from shipbench.results.sealed import is_sealed
from shipbench.results.store import RunTables, Store
from shipbench.runs import evaluate as module
from shipbench.runs import finished
from shipbench.runs.evaluation_images import open_images
from shipbench.runs.evaluation_plan import EvaluationOptions, PlannedEvaluation, plan_evaluation
from shipbench.runs.export import load_exported
from shipbench.runtime.console import say_once
from shipbench.tasks import get_task, parse_tasks
from shipbench.training.inputs import ImageInputs
from tests.conftest import Shipbench
from tests.data.builders import vtab_tree
from tests.results.test_store import make_record
from tests.tasks.pictures import NAMES, image_folder, picture

SMALL = (
    *("--backbone", "vit_tiny_patch16_224", "--checkpoint", "random", "--device", "cpu", "--jobs", "1"),
    *("--set", "image_size=64", "--set", "batch_size=8", "--epochs", "2", "--precision", "fp32"),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``bugs`` copies."""
    folder = tmp_path_factory.mktemp("trained")
    image_folder(folder / "bugs", {"": (10, 10, 10)})
    line = ("run", "--method", "ship", "--tasks", task_file(folder, 'resize = "crop"'), *SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHIPBENCH_CACHE", str(folder / "cache"))
        app([*map(str, line), "--results", str(folder / "r")], standalone_mode=False)
    return folder


@pytest.fixture
def bugs(trained: Path, tmp_path: Path, cache: Path) -> Path:
    """A results folder ``r`` with a run of SHIP on the centres of the images in ``bugs``, beside that folder."""
    return shutil.copytree(trained, tmp_path, dirs_exist_ok=True)


def task_file(folder: Path, keys: str, name: str = "bugs", source: str = "bugs") -> Path:
    file = folder / f"{name}-task.toml"
    file.write_text(f'[suite]\nname = "own"\n[[task]]\nname = "{name}"\nsource = "folder:{source}"\n{keys}\n')
    return file


def only_run(folder: Path) -> str:
    frame = load_results(folder / "r")
    return str(frame.loc[frame["kind"] == "trained", "run_id"].item())


def on(folder: Path) -> tuple[str, str]:
    return ("--on", f"folder:{folder}")


def evaluations(shipbench: Shipbench, folder: Path, *options: object) -> list[dict[str, object]]:
    outcome = shipbench("evaluate", only_run(folder), *options, "--results", folder / "r", "--device", "cpu", "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)["evaluations"]


def test_a_run_on_its_own_test_images_predicts_what_it_predicted(shipbench: Shipbench, bugs: Path) -> None:
    run_id = only_run(bugs)
    # A run that is named twice is evaluated once.
    # The same images keep the name of the run's task, whatever they are called here.
    (row,) = evaluations(shipbench, bugs, run_id[:10], "--on", task_file(bugs, "", "others"))
    frame = load_results(bugs / "r").set_index("run_id")
    assert (row["kind"], row["parent_run"], row["n_test"], row["task"]) == ("evaluated", run_id, 6, "bugs")
    assert (row["corruption"], row["severity"], row["source"]) == ("", 0, "folder")
    assert row["data_fingerprint"] == frame.loc[run_id, "data_fingerprint"]
    assert row["final_test_acc"] == frame.loc[run_id, "final_test_acc"]
    assert (row["best_test_acc"], row["train_seconds"], row["best_test_epoch"]) == (None, None, -1)
    ours, theirs = (load_predictions(bugs / "r", [key]) for key in (row["run_id"], run_id))
    for name in ("index", "label", "predicted"):
        assert ours[name].tolist() == theirs[name].tolist()
    assert ours["confidence"].tolist() == pytest.approx(theirs["confidence"].tolist(), abs=1e-5)
    assert is_sealed(bugs / "r" / "predictions" / f"{row['run_id']}.parquet")


def test_a_folder_without_a_split_gives_all_its_images_with_classes_matched_by_name(
    shipbench: Shipbench, bugs: Path
) -> None:
    # The file numbers the classes differently, so that a match by number would exchange ants and wasps.
    image_folder(bugs / "outdoors", {"": (3, 2, 4)})
    file = task_file(bugs, 'classes = ["wasp", "bee", "ant"]', "outdoors", "outdoors")
    (row,) = evaluations(shipbench, bugs, "--on", file)
    assert (row["task"], row["n_test"], row["source"]) == ("outdoors", 9, "folder")
    frame = load_predictions(bugs / "r", [row["run_id"]])
    assert frame["label"].value_counts().to_dict() == {0: 3, 1: 2, 2: 4}
    right = frame["label"] == frame["predicted"]
    assert row["final_test_acc"] == pytest.approx(right.mean())
    assert row["final_test_mean_class_acc"] == pytest.approx(right.groupby(frame["label"]).mean().mean())
    assert row["chance_acc"] == pytest.approx(4 / 9)


def test_what_to_know_of_the_images_is_said_once(shipbench: Shipbench, bugs: Path) -> None:
    image_folder(bugs / "outdoors", {"": (1, 1, 1)})
    (bugs / "outdoors" / "ant" / "phone.heic").touch()
    note = "outdoors: skipped 1 image of a kind that is not read (.heic: convert to PNG or JPEG)"
    line = ("evaluate", only_run(bugs), *on(bugs / "outdoors"), "--results", bugs / "r", "--device", "cpu")
    outcome = shipbench(*line, "--corrupt", "contrast", "--severity", "1,2")
    assert (outcome.code, outcome.err.count(note)) == (0, 1)
    held_out = "bugs: the source has no test images, so a fifth of each class is held out (6 images)"
    features = shipbench("explain", only_run(bugs), "--features", *on(bugs / "bugs"), *line[-4:])
    assert (features.code, features.err.count(held_out)) == (0, 1)


def test_what_is_corrupted_is_the_square_that_the_model_sees_on_the_host(
    shipbench: Shipbench, bugs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_folder(bugs / "single", {"": (1, 1, 1)})
    prepare, evaluate, on_host = module.image_inputs, module.evaluate, []

    def as_on_a_gpu(*arguments: Any, **options: Any) -> ImageInputs:
        return replace(prepare(*arguments, **options), on_host=False)

    def watched(model: Any, inputs: ImageInputs, *arguments: Any, **options: Any) -> Any:
        on_host.append(inputs.on_host)
        return evaluate(model, inputs, *arguments, **options)

    monkeypatch.setattr(module, "image_inputs", as_on_a_gpu)
    monkeypatch.setattr(module, "evaluate", watched)
    monkeypatch.setattr(module, "device_name", lambda device: "cuda: NVIDIA H200")
    (row,) = evaluations(shipbench, bugs, *on(bugs / "single"), "--corrupt", "gaussian-noise", "--severity", 5)
    assert on_host == [True]
    assert (row["corruption"], row["severity"], row["device"]) == ("gaussian-noise", 5, "cuda: NVIDIA H200")
    exported = load_exported(Store(bugs / "r").path("weights", only_run(bugs)), checkpoint="random")
    squares = [resize(Image.open(bugs / "single" / name / "0.png"), 64, "crop") for name in NAMES]
    noisy = Corruption("gaussian-noise", 5)(torch.from_numpy(np.stack(squares)), torch.arange(3))
    mean, std = (torch.tensor(each) for each in (exported.preprocessing.mean, exported.preprocessing.std))
    with torch.no_grad():
        probabilities = exported.model(((noisy / 255 - mean) / std).permute(0, 3, 1, 2)).softmax(dim=1)
    stored = load_predictions(bugs / "r", [row["run_id"]])["confidence"]
    assert stored.tolist() == pytest.approx(probabilities.amax(dim=1).tolist(), abs=1e-6)


def test_the_same_source_with_another_draw_is_refused(shipbench: Shipbench, bugs: Path) -> None:
    file = task_file(bugs, "test = 3", "fewer")
    outcome = shipbench("evaluate", only_run(bugs), "--on", file, "--results", bugs / "r")
    assert outcome.code == 2
    assert "fewer draws 3 test images from the source of run" in outcome.err
    assert "which was tested on 6; name the task file or the source of the run with --on" in outcome.err


def test_a_changed_source_of_the_run_is_not_scored_on_training_images(bugs: Path) -> None:
    store, run_id = Store(bugs / "r"), only_run(bugs)
    task = get_task(f"folder:{bugs / 'bugs'}")
    refused = f"bugs has the name of the source of run {run_id} but other images, some of which the run may have been"
    picture(77, 0).save(bugs / "bugs" / "ant" / "new.png")
    for name in ("others", "bugs-2026"):
        (other,) = parse_tasks(str(task_file(bugs, "", name)))
        assert plan_evaluation(store, run_id, EvaluationOptions(other)).images.copy.counts["test"] == 31
    with pytest.raises(InputError, match=refused):
        plan_evaluation(store, run_id, EvaluationOptions(task))
    record = replace(finished.tested_record(store, run_id), task="bugs-2")
    with pytest.raises(InputError, match=refused):
        open_images(record, "crop", task, None).identified()
    # A source that lacks a name of its own may have got another one, and another number, when the run was made.
    shutil.copytree(bugs / "bugs", bugs / "moths" / "train")
    rows = [f"bugs/{file.relative_to(bugs / 'bugs')},{file.parent.name}" for file in (bugs / "bugs").rglob("*.png")]
    (bugs / "moths" / "labels.csv").write_text("\n".join(["image,label", *rows]))
    for source, names in (
        (f"folder:{bugs / 'moths' / 'train'}", ("moths", "train", "train-3")),
        (f"csv:{bugs / 'moths' / 'labels.csv'}:{bugs}", ("moths", "labels", "labels.csv")),
    ):
        task = get_task(source)
        for name in names:
            record = replace(finished.tested_record(store, run_id), task=name, source=task.source)
            for called in (task, replace(task, name="moths-2")):
                with pytest.raises(InputError, match=f"{called.name} has the name of the source of run {run_id}"):
                    open_images(record, "crop", called, None).identified()
            for chosen in (replace(task, name="others"), replace(task, name="moths-2026", named=True)):
                assert open_images(record, "crop", chosen, None).identified().copy.counts["test"] == 31
    task = get_task(f"folder:{bugs / 'bugs'}")
    # Nothing can be drawn from a single image of each class.
    for file in (bugs / "bugs").rglob("*.png"):
        if file.name != "0.png":
            file.unlink()
    with pytest.raises(InputError, match=refused):
        plan_evaluation(store, run_id, EvaluationOptions(task))


def test_a_run_with_damaged_weights_keeps_no_other_from_being_evaluated(shipbench: Shipbench, bugs: Path) -> None:
    store, run_id, damaged = Store(bugs / "r"), only_run(bugs), "a" * 16
    store.write(replace(finished.tested_record(store, run_id), run_id=damaged))
    with safe_open(store.path("weights", run_id), "pt") as stream:
        metadata = stream.metadata()
    tensors = load_file(store.path("weights", run_id))
    store.write_weights(damaged, tensors | {"head.bias": tensors["head.bias"] + 1}, metadata)
    options = (*on(bugs / "bugs"), "--results", bugs / "r", "--device", "cpu", "--json")
    outcome = shipbench("evaluate", damaged, *options)
    assert (outcome.code, outcome.out) == (2, "")
    outcome = shipbench("evaluate", damaged, run_id, *options)
    assert outcome.code == 1
    assert [row["parent_run"] for row in json.loads(outcome.out)["evaluations"]] == [run_id]
    assert f"run {damaged} FAILED: {store.path('weights', damaged)} cannot be used" in outcome.err
    assert outcome.err.splitlines()[-1] == f"1 of 2 runs could not be evaluated: {damaged}"
    store.path("weights", damaged).write_bytes(b"junk")
    outcome = shipbench("evaluate", damaged, *options)
    assert (outcome.code, "cannot be read" in outcome.err) == (2, True), outcome.err


def test_evaluations_of_weights_before_a_repetition_count_as_missing(
    shipbench: Shipbench, bugs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, run_id = Store(bugs / "r"), only_run(bugs)
    spec = RunSpec("ship", get_task(f"folder:{bugs / 'bugs'}"), checkpoint="random", device="cpu")
    requested = request_follow_up(EvaluatePart(name="x", of="a", corrupt="jpeg", severity="1,2"), [spec])

    def planned() -> FollowUpSection:
        return plan_follow_up(requested, [PlannedRun(spec, run_id, State.DONE)], [], lambda run: False, store)

    line = (*on(bugs / "bugs"), "--corrupt", "jpeg", "--severity", "1,2")
    rows = evaluations(shipbench, bugs, *line)
    shutil.copytree(bugs / "r", bugs / "copy" / "r", copy_function=shutil.copyfile)
    os.utime(Store(bugs / "copy" / "r").path("runs", run_id), (2**31, 2**31))
    assert evaluations(shipbench, bugs / "copy", *line) == rows
    assert (planned().done, planned().left) == (2, 0)
    # As after ``shipbench run --force``, by a clock that is ahead of this one.
    later = "2999-01-01T00:00:00+00:00"
    store.write(replace(finished.tested_record(store, run_id), created=later))
    assert (planned().done, planned().left) == (0, 2)
    say_once.cache_clear()
    assert execute_follow_ups([planned()], store.root) == 0
    assert "a fifth of each class is held out" in capsys.readouterr().err
    assert (planned().done, planned().left) == (2, 0)
    again = evaluations(shipbench, bugs, *line)
    assert [row["run_id"] for row in again] == [row["run_id"] for row in rows]
    assert [row["created"] for row in again] == [later, later]


def test_an_interrupted_evaluation_keeps_what_is_finished(
    shipbench: Shipbench, bugs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score, calls = module.evaluate, []

    def interrupted(*arguments: object, **options: object) -> object:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return score(*arguments, **options)

    monkeypatch.setattr(module, "evaluate", interrupted)
    line = ("evaluate", only_run(bugs), *on(bugs / "bugs"), "--corrupt", "jpeg", "--severity", "1-2")
    outcome = shipbench(*line, "--results", bugs / "r")
    assert outcome.code == 130
    assert f"1 of 2: {only_run(bugs)} on its test images, jpeg 1\n" in outcome.err
    assert f"stopped; finished evaluations are kept in {bugs / 'r'}, and the same command continues" in outcome.err
    assert not list((bugs / "r" / "claims").iterdir())
    outcome = shipbench(*line, "--results", bugs / "r")
    assert (outcome.code, len(calls)) == (0, 3)
    assert outcome.err.splitlines()[-1].startswith(f"next: shipbench report --results {bugs / 'r'}")


def test_an_evaluation_of_another_process_is_awaited_and_taken_over(shipbench: Shipbench, bugs: Path) -> None:
    store = Store(bugs / "r")
    task = get_task(f"folder:{bugs / 'bugs'}")
    planned = plan_evaluation(store, only_run(bugs), EvaluationOptions(task, device="cpu"))
    (run_id,) = planned.run_ids
    claim = take(store.root, run_id)
    assert claim is not None
    claim.__enter__()

    def store_and_release(event: Event) -> None:
        assert isinstance(event, Note)
        store.write(replace(planned.parent, run_id=run_id, kind="evaluated", parent_run=planned.parent.run_id))
        claim.__exit__()

    (record,) = module.execute_evaluation(planned, listener=store_and_release)
    assert record.train_seconds == planned.parent.train_seconds
    in_bf16 = replace(planned, parent=replace(planned.parent, precision="bf16"))
    assert [module.Scoring(plan).compute.precision for plan in (planned, in_bf16)] == ["fp32", "bf16"]


def test_the_id_of_an_evaluation_is_pinned(tmp_path: Path) -> None:
    """A new value here repeats every evaluation on disk: change it on purpose or not at all."""
    source = SimpleNamespace(open_split=lambda _: NativeSplit(np.array([0, 1]), Image.new))
    copy = SimpleNamespace(identity=Identity("f" * 64, "png", {"test": "c" * 64}), source=source)
    images: Any = SimpleNamespace(copy=copy)
    blurred = tuple(Corruption("blur", severity) for severity in (2, 3))
    ids = [
        list(PlannedEvaluation(Store(tmp_path), make_record(run_id="a1"), tmp_path, images, options).run_ids)
        for options in (EvaluationOptions(), EvaluationOptions(corruptions=blurred))
    ]
    assert ids == [["a09278429f69cee4"], ["e3ba7befe5d6e2f5", "13ab3f8deb7580ac"]]


def test_an_evaluation_that_was_taken_over_is_not_stored(bugs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(bugs / "r")
    task = get_task(f"folder:{bugs / 'bugs'}")
    planned = plan_evaluation(store, only_run(bugs), EvaluationOptions(task, device="cpu"))
    (run_id,) = planned.run_ids

    def taken_over(*_: object) -> tuple[RunRecord, RunTables]:
        revoke(store.root, run_id)
        return replace(planned.parent, run_id=run_id), RunTables()

    monkeypatch.setattr(module.Scoring, "score", taken_over)
    with pytest.raises(ClaimLostError):
        list(module.execute_evaluation(planned))
    assert store.read(run_id) is None


def test_runs_that_were_not_tested_or_whose_weights_are_not_named_are_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(make_record(run_id="trial", protocol="tuning"))
    store.write(make_record(run_id="foreign", checkpoint="my.npz"))
    for run_id, words in (
        ("trial", "run trial is a trial of a tuning, which never opens the test split"),
        ("foreign", r"was trained on the weights in my\.npz; name that file with --checkpoint"),
    ):
        store.path("weights", run_id).parent.mkdir(exist_ok=True)
        store.path("weights", run_id).touch()
        with pytest.raises(InputError, match=words):
            plan_evaluation(store, run_id, EvaluationOptions(get_task("dtd")))
        with pytest.raises(InputError, match=words):
            plan_explanation(store, run_id, ExplainOptions(), features=True)
    store.write(make_record(run_id="failed", status="failed", error="out of memory"))
    with pytest.raises(InputError, match=r"run failed failed \(out of memory\), so it has no weights; repeat it"):
        finished.tested_record(store, "failed")
    store.write(make_record(run_id="printed", kind="imported"))
    with pytest.raises(InputError, match="record printed is imported, so it has no weights here; name a run of"):
        finished.trained_record(store, "printed")
    (tmp_path / "my.npz").touch()
    named = str(tmp_path / "my.npz")
    assert finished.checkpoint_of(make_record(checkpoint="my.npz"), named) == named
    with pytest.raises(InputError, match=r"checkpoint there/my\.npz does not exist or is not a file"):
        finished.checkpoint_of(make_record(checkpoint="my.npz"), "there/my.npz")
    assert finished.checkpoint_of(make_record(checkpoint="random"), None) == "random"


def test_a_folder_with_a_test_split_gives_that_split_alone(shipbench: Shipbench, bugs: Path) -> None:
    image_folder(bugs / "split", {"train": (4, 4, 4), "test": (1, 2, 3)})
    image_folder(bugs / "single", {"": (1, 1, 1)})
    counts = [
        evaluations(shipbench, bugs, "--on", f"folder:{bugs / name}")[0]["n_test"] for name in ("split", "single")
    ]
    assert counts == [6, 3]
    other = shutil.copytree(bugs / "single", bugs / "other")
    picture(7, 0).save(other / "ant" / "0.png")
    options = [EvaluationOptions(get_task(f"folder:{bugs / name}")) for name in ("single", "other")]
    single, changed = (plan_evaluation(Store(bugs / "r"), only_run(bugs), each).run_ids for each in options)
    assert single.keys() != changed.keys()


def test_the_table_tells_the_images_and_both_accuracies(capsys: pytest.CaptureFixture[str]) -> None:
    parent = make_record(run_id="a1", task="bugs", data_fingerprint="f1", final_test_acc=0.75)
    own = replace(parent, run_id="e1", corruption="jpeg", severity=2, n_test=7, final_test_acc=0.5)
    elsewhere = replace(parent, run_id="e2", task="outdoors", data_fingerprint="f2", n_test=9, final_test_acc=0.25)
    per_class = {"headline_metric": MEAN_PER_CLASS, "final_test_mean_class_acc": 0.125}
    scored_per_class = (replace(parent, **per_class), replace(elsewhere, **per_class))
    evaluate_command._show([(parent, own), (parent, elsewhere), scored_per_class])
    rows = [" ".join(line.replace("│", " ").split()) for line in capsys.readouterr().out.splitlines()]
    assert f"a1 {parent.method} its test images, jpeg 2 7 75.0 50.0" in rows
    assert f"a1 {parent.method} outdoors 9 75.0 25.0" in rows
    assert f"a1 {parent.method} outdoors (mean per class) 9 12.5 12.5" in rows


def test_other_classes_are_refused_by_name_and_nothing_is_written(shipbench: Shipbench, bugs: Path) -> None:
    image_folder(bugs / "birds", {"": (3, 3, 3)}, ("ant", "bee", "crow"))
    image_folder(bugs / "more", {"": (3, 3, 3, 3)}, (*NAMES, "moth"))
    before = sorted((bugs / "r").rglob("*"))
    for folder, words in (
        ("birds", "it lacks 'wasp' and has 'crow' besides; name images of the same classes"),
        ("more", "it has 'moth' besides"),
        ("nowhere", "nowhere"),
    ):
        outcome = shipbench("evaluate", only_run(bugs), "--on", f"folder:{bugs / folder}", "--results", bugs / "r")
        assert outcome.code == 2
        assert words in outcome.err
    assert sorted((bugs / "r").rglob("*")) == before


REFUSED = (
    ((), "name the images with --on, or a corruption of the run's test images with --corrupt"),
    (("--corrupt", "blur", "--device", "cuda:7"), "device 'cuda:7' is not available"),
    (("--corrupt", "fog"), "unknown corruption 'fog'; choose from gaussian-noise, blur, jpeg, contrast"),
    (("--corrupt", "blurr"), "did you mean 'blur'?"),
    (("--corrupt", "blur", "--severity", "6"), "severity 6 is not one of 1 to 5"),
    (("--corrupt", "blur", "--severity", "x"), "--severity 'x' is not a list of severities"),
    (("--severity", "2"), "--severity needs --corrupt"),
    (("--corrupt", "blur"), "records hold no paths; name its source with --on"),
    (("--on", "demo"), "names 6 tasks; name one"),
    (("--on", "clevr-count"), "clevr-count has 8 classes, but run"),
)


def test_corruptions_have_all_severities_unless_some_are_named() -> None:
    expected = tuple(Corruption(name, severity) for name in ("blur", "jpeg") for severity in range(1, 6))
    assert evaluate_command._corruptions("dtd", "blur,jpeg", None) == expected
    part = EvaluatePart(name="x", of="a", corrupt="blur,jpeg")
    assert request_follow_up(part, [RunSpec("linear", "dtd")]).corruptions == expected


def test_what_cannot_be_evaluated_is_refused_in_a_sentence(shipbench: Shipbench, bugs: Path) -> None:
    for options, words in REFUSED:
        outcome = shipbench("evaluate", only_run(bugs), *options, "--results", bugs / "r")
        assert outcome.code == 2, options
        assert words in outcome.err
    assert len(load_results(bugs / "r")) == 1


def test_corrupted_images_of_a_catalogued_task_are_resumed_listed_and_kept_out_of_tables(
    shipbench: Shipbench, tmp_path: Path, cache: Path
) -> None:
    data = vtab_tree(tmp_path / "data", tasks=("dtd",))
    shipbench("run", "--method", "linear", "--tasks", "dtd", "--data", data, *SMALL, "--results", tmp_path / "r")
    corrupt = ("--corrupt", "gaussian-noise,jpeg", "--severity", "1,5", "--data", data)
    rows = evaluations(shipbench, tmp_path, *corrupt)
    assert [(row["corruption"], row["severity"]) for row in rows] == [
        *(("gaussian-noise", 1), ("gaussian-noise", 5), ("jpeg", 1), ("jpeg", 5)),
    ]
    assert len({row["run_id"] for row in rows}) == 4
    stored = {path: path.stat().st_mtime_ns for path in (tmp_path / "r" / "runs").iterdir()}
    assert evaluations(shipbench, tmp_path, *corrupt) == rows
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "r" / "runs").iterdir()} == stored
    assert not list((tmp_path / "r" / "claims").iterdir())
    (again,) = evaluations(shipbench, tmp_path, *corrupt[:2], "--severity", "5", "--data", data, "--force")[:1]
    assert again["run_id"] == rows[1]["run_id"]
    changed = {path.stem for path, written in stored.items() if path.stat().st_mtime_ns != written}
    assert changed == {rows[1]["run_id"], rows[3]["run_id"]}

    listed = shipbench("list", "runs", "--results", tmp_path / "r").out
    assert "evaluated, jpeg 5" in listed
    again = shipbench(
        "run", "--method", "linear", "--tasks", "dtd", "--data", data, *SMALL, "--results", tmp_path / "r", "--dry-run"
    )
    assert "1 run: 0 to do, 1 done" in again.err
    for command in (("evaluate", rows[0]["run_id"], *corrupt), ("export", rows[0]["run_id"], tmp_path / "x")):
        outcome = shipbench(*command, "--results", tmp_path / "r")
        assert outcome.code == 2
        assert f"is an evaluation of run {only_run(tmp_path)}" in outcome.err


def test_another_copy_of_a_catalogued_task_needs_on(shipbench: Shipbench, tmp_path: Path, cache: Path) -> None:
    data = vtab_tree(tmp_path / "data", tasks=("dtd",))
    shipbench("run", "--method", "linear", "--tasks", "dtd", "--data", data, *SMALL, "--results", tmp_path / "r")
    other = shutil.copytree(data, tmp_path / "other")
    first = (other / "dtd" / "test.txt").read_text().split()[0]
    picture(5, 1).save(other / "dtd" / first, format="JPEG")
    command = ("evaluate", only_run(tmp_path), "--data", other, "--results", tmp_path / "r")
    outcome = shipbench(*command, "--corrupt", "blur", "--severity", 1)
    assert outcome.code == 2
    assert "the images of dtd are not those of run" in outcome.err
    outcome = shipbench(*command, "--on", "dtd", "--json")
    assert outcome.code == 0, outcome.err
    (row,) = json.loads(outcome.out)["evaluations"]
    assert row["n_test"] == len((data / "dtd" / "test.txt").read_text().splitlines())
