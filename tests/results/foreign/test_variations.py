"""Files as editors, other systems and killed runs leave them: line ends, encodings, absent keys, cut lines, copies."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shipbench.errors import InputError
from shipbench.results.foreign.metric_tables import read_table
from shipbench.results.foreign.text import read_yaml
from tests.data.formats.samples import samples
from tests.results.foreign.test_readers import NOAH_CONFIG, SHIP_HEADER, VTAB_LOG, reason_of, record_of
from tests.results.foreign.test_samples import FOLDERS, check
from tests.results.foreign.trees import imported, json_lines, osu_result, vpt_log, write

VARIATIONS: dict[str, Callable[[str], bytes]] = {
    "carriage returns and line feeds": lambda text: text.replace("\n", "\r\n").encode(),
    "carriage returns": lambda text: text.replace("\n", "\r").encode(),
    "byte-order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "no end of the last line": lambda text: text.rstrip().encode(),
}
STAMP = "2024-07-25 10:00:00,000 - training - INFO - "
SPACE = "Namespace(seed=4, lr=0.1, dataset='kitti', task='vtab', model_type='vit_lora')"


@pytest.mark.parametrize("variation", VARIATIONS)
@pytest.mark.parametrize("folder", FOLDERS)
def test_a_sample_is_read_whatever_wrote_its_lines(folder: str, variation: str, tmp_path: Path) -> None:
    root = samples().parent
    for path in filter(Path.is_file, (root / folder).rglob("*")):
        copy = tmp_path / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(VARIATIONS[variation](path.read_text()))
    path = tmp_path / folder / "results.csv" if folder == "plain_csv" else tmp_path / folder
    naming = {"method": "ssf", "task": "torch/cifar100"} if folder == "timm" else {}
    outcomes = imported(FOLDERS[folder], path, tmp_path / "results", **naming)
    for fact in json.loads((root / "expected.json").read_text())["results"][folder]:
        if "error" not in fact:
            place = tmp_path / fact["path"]
            check(fact, [outcome for outcome in outcomes if place in (outcome.file, outcome.file.parent)])


@pytest.mark.parametrize(
    ("harness", "name"),
    [
        ("osu", "final_result.json"),
        ("vpt", "logs.txt"),
        ("noah", "log.txt"),
        ("ship", "log.txt"),
        ("ship", "results_summary.txt"),
        ("adapter-plus", "metrics.csv"),
        ("adapter-plus", "eval.log"),
        ("vpetl", "training.log"),
        ("timm", "summary.csv"),
        ("csv", "a.csv"),
    ],
)
@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe\x00\x00\x01", b"a\rb,c\x00\nd"])
def test_what_is_no_file_of_the_harness_is_one_sentence(
    harness: str, name: str, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        imported(harness, path, tmp_path / "results")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert content.strip() or "is empty" in str(caught.value)


def test_a_link_to_nothing_is_listed(tmp_path: Path) -> None:
    osu_result(tmp_path, "dtd", "lora", 60.0, 61.0)
    (tmp_path / "tune_output/default_vtab/processed_vtab/final_result.json").symlink_to(tmp_path / "absent")
    states = [outcome.state for outcome in imported("osu", tmp_path, tmp_path / "results")]
    assert sorted(states) == ["imported", "skipped"]


def test_what_is_no_file_of_results_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipbench.results.foreign.text._MOST_BYTES", 1_000_000)
    log = write(tmp_path / "training.log", "x" * 2_000_000)
    assert reason_of(imported("vpetl", tmp_path, tmp_path / "results")) == "it cannot be read: it has 2 MB, more than 1"
    log.unlink()
    log.symlink_to("/dev/null")
    reason = reason_of(imported("vpetl", tmp_path, tmp_path / "results"))
    assert reason == "it cannot be read: it is not a regular file"


def test_a_log_that_is_made_to_be_read_slowly_is_skipped(tmp_path: Path) -> None:
    write(tmp_path / "a/training.log", f"{STAMP}Namespace(seed={'-' * 20_000}1)\n")
    write(tmp_path / "b/training.log", f"{STAMP}x{' ' * 400_000}y\n")
    nested, spaces = imported("vpetl", tmp_path, tmp_path / "results")
    assert nested.reason.startswith("it cannot be read: ")
    assert spaces.reason.startswith("it logs no accuracy")


def test_a_copy_of_a_folder_is_imported_once(tmp_path: Path) -> None:
    write(tmp_path / "a" / VTAB_LOG, vpt_log([50], epochs=1))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    first, second = imported("vpt", tmp_path, tmp_path / "results")
    assert first.state == "imported"
    assert (second.state, second.reason) == ("skipped", f"the same result as in {first.file}")


def test_one_name_of_a_task_is_not_given_to_several(tmp_path: Path) -> None:
    for name in ("dtd", "svhn"):
        osu_result(tmp_path, name, "lora", 60.0, 61.0)
    with pytest.raises(InputError, match=r"--task names one task, but .* holds results of dtd and svhn"):
        imported("osu", tmp_path, tmp_path / "results", task="kitti")


def test_files_in_the_working_folder_are_read_with_the_folders_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "output/vtab/adapter_plus_dim8"
    write(folder / "dtd/seed=18/logs/hparams.yaml", "cfg: {data: {val_split: test}}\n")
    write(folder / "dtd/seed=18/logs/metrics.csv", "epoch,val/accuracy\n99,0.7\n")
    write(folder / "eval.log", "svhn\t18\t0.8\n")
    write(tmp_path / VTAB_LOG, vpt_log([50], epochs=1, SEED="None"))
    read = {}
    for harness, path in (
        ("adapter-plus", folder / "dtd/seed=18/logs/metrics.csv"),
        ("adapter-plus", folder / "eval.log"),
        ("vpt", tmp_path / VTAB_LOG),
    ):
        monkeypatch.chdir(path.parent)
        record = record_of(imported(harness, Path(path.name), tmp_path / "results"))
        read[path.name] = (record.method, record.task, record.seed)
    assert read == {
        "metrics.csv": ("adapter-plus", "dtd", 18),
        "eval.log": ("adapter-plus", "svhn", 18),
        "logs.txt": ("vpt-deep", "dtd", 82),
    }


def test_a_line_of_eval_log_without_an_accuracy_is_named(tmp_path: Path) -> None:
    write(tmp_path / "adapter_plus_dim8/eval.log", "dtd  18   0.7\nsvhn\t18\t\ncamelyon\tx\t0.9\n")
    outcomes = imported("adapter-plus", tmp_path, tmp_path / "results")
    assert [outcome.record.task for outcome in outcomes if outcome.record] == ["dtd"]
    reasons = [outcome.reason for outcome in outcomes if outcome.state == "skipped"]
    assert reasons == [f"line {i} is not a task, a seed and an accuracy" for i in (2, 3)]


def test_a_last_accuracy_that_was_cut_off_is_not_read(tmp_path: Path) -> None:
    log = vpt_log([50, 61.25], epochs=2)
    path = write(tmp_path / VTAB_LOG, log[: log.rindex("61.25") + 1])
    assert "incomplete: 1 of 2 epochs" in reason_of(imported("vpt", tmp_path, tmp_path / "results"))
    path.write_text(log[: log.rindex("61.25") + 5])
    assert record_of(imported("vpt", tmp_path, tmp_path / "results")).final_test_acc == 0.6125


def test_a_score_that_is_no_number_counts_as_an_epoch(tmp_path: Path) -> None:
    log = vpt_log([10, 70, 60], epochs=3).replace("top1: 10.00", "top1: nan").replace("top1: 7", "top1:   7")
    write(tmp_path / VTAB_LOG, log)
    record = record_of(imported("vpt", tmp_path, tmp_path / "results"))
    assert (record.best_test_acc, record.best_test_epoch) == (0.7, 1)


def test_a_share_of_the_training_images_is_noted(tmp_path: Path) -> None:
    write(tmp_path / VTAB_LOG, vpt_log([50], epochs=1, PERCENTAGE="0.1"))
    note = record_of(imported("vpt", tmp_path, tmp_path / "results")).origin_note
    assert "trained on 10 % of the training images" in note


def test_rows_that_are_cut_or_lack_columns_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "epoch, eval_top1 ,lr\n0,50,1\n1,2\nepoch,lr,eval_top1\n2, 3,60\n\n3,1,6")
    header, rows = read_table(path)
    assert header == ["epoch", "eval_top1", "lr"]
    assert [(row["epoch"], row["eval_top1"]) for row in rows] == [("0", "50"), ("2", "60"), ("3", "6")]


def test_epochs_that_are_repeated_replace_those_before(tmp_path: Path) -> None:
    log = SHIP_HEADER + json_lines({0: 10, 10: 20, 20: 84}) + SHIP_HEADER + json_lines({20: 70, 30: 75})
    write(tmp_path / "ship/log.txt", log)
    record = record_of(imported("ship", tmp_path / "ship", tmp_path / "results"))
    assert (record.final_test_acc, record.best_test_acc) == (0.75, 0.75)


def test_noah_and_ship_do_not_take_each_others_logs(tmp_path: Path) -> None:
    write(tmp_path / "config.yaml", NOAH_CONFIG.format(epochs=31, mode="retrain"))
    log = write(tmp_path / "log.txt", SHIP_HEADER + json_lines({0: 10, 30: 50}))
    assert "import it as ship" in reason_of(imported("noah", tmp_path, tmp_path / "results"))
    log.write_text(json_lines({0: 10, 30: 50}, prompt_indices=[0]))
    assert "import it as ship" in reason_of(imported("noah", tmp_path, tmp_path / "results"))
    assert record_of(imported("ship", tmp_path, tmp_path / "results")).method == "ship"
    log.write_text(json_lines({0: 10, 30: 50}))
    assert "import a log of NOAH as noah" in reason_of(imported("ship", tmp_path, tmp_path / "results"))


def test_noah_without_a_mode_is_in_the_mode_of_its_default(tmp_path: Path) -> None:
    write(tmp_path / "config.yaml", NOAH_CONFIG.format(epochs=1, mode="super").replace("mode: super\n", ""))
    write(tmp_path / "log.txt", json_lines({0: 10}))
    assert record_of(imported("noah", tmp_path, tmp_path / "results")).method == "adapter"


def test_every_block_of_a_summary_is_read_or_named(tmp_path: Path) -> None:
    place = "/home/someone/SHIP/saves_0905/dtd/dtd_0.1_0.0_m3l_0.9_K5_cfg_experiments/M3L/ViT-B_prompt_5/seed1/log.txt"
    blocks = [
        f"Max accuracy found:  70.5%\nLog file path:  {place}\n",
        f"Max accuracy found: 71.5\n\nLog file path: {place.replace('dtd', 'svhn')}\nDetails: n_parameters=7\n",
        "Max accuracy found: 72.5\nLog file path: saves/kitti/ki",
    ]
    write(tmp_path / "results_summary.txt", f"{'#' * 18}\n".join(["", *blocks]))
    outcomes = imported("ship", tmp_path, tmp_path / "results")
    records = [outcome.record for outcome in outcomes if outcome.record]
    read = [(r.task, r.best_test_acc, r.seed, r.params_as_written, r.settings["prompt_length"]) for r in records]
    assert read == [
        ("dtd", 0.705, 1, pytest.approx(float("nan"), nan_ok=True), 5),
        ("svhn", 0.715, 1, 7, 5),
    ]
    assert "a block without an accuracy and the path of a log: 72.5" in outcomes[2].reason


def test_vpetl_says_what_an_unfinished_log_lacks(tmp_path: Path) -> None:
    path = tmp_path / "training.log"
    write(path, "".join(f"{STAMP}{line}\n" for line in [SPACE, "9   0.5  memory: 1MB"]))
    with pytest.raises(InputError, match="incomplete: 10 epochs, the log has no line 'end'; the last"):
        imported("vpetl", path, tmp_path / "results")
    write(path, "".join(f"{STAMP}{line}\n" for line in [SPACE, "9 0.6 memory: 1MB", "end"] * 2))
    assert "earlier run" in record_of(imported("vpetl", path, tmp_path / "results")).origin_note


def test_a_column_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "method,task,accuracy,accuracy\nA,dtd,50,60\n")
    with pytest.raises(InputError, match="has the column 'accuracy' twice"):
        imported("csv", path, tmp_path / "results")


def test_objects_of_python_in_a_yaml_file_are_not_built(tmp_path: Path) -> None:
    text = "a: !!python/tuple [1, 2]\nb: !!python/object/apply:os.system ['exit 3']\nc: !!python/object:x.Y {d: 1}\n"
    content: dict[str, Any] = read_yaml(write(tmp_path / "a.yaml", text))
    assert content == {"a": [1, 2], "b": ["exit 3"], "c": {"d": 1}}


def test_a_yaml_file_does_not_fill_the_memory(tmp_path: Path) -> None:
    aliases = "a0: &a0 [0, 1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 20))
    for text, message in ((aliases, "its aliases stand for more than"), ("[" * 5000, "nested too deeply")):
        with pytest.raises(ValueError, match=rf"^a\.yaml is not YAML: .*{message}"):
            read_yaml(write(tmp_path / "a.yaml", text))
    shared = "a: &id001\n- 1\nb: *id001\n"
    assert read_yaml(write(tmp_path / "a.yaml", shared)) == {"a": [1], "b": [1]}
