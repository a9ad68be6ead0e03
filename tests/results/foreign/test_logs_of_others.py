"""Logs as people publish and pass them on: repeated lines, several attempts, other evaluation steps, wrapped files."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path
from typing import Any

import pytest

from shipbench.errors import InputError
from tests.results.foreign.test_readers import (
    FGVC_LOG,
    NOAH_CONFIG,
    SHIP_HEADER,
    VTAB_LOG,
    reason_of,
    record_of,
)
from tests.results.foreign.test_variations import SPACE, STAMP
from tests.results.foreign.trees import imported, json_lines, vpt_log, write

TIMM: dict[str, Any] = {"method": "ssf", "task": "cifar100"}
TIMM_HEADER = "epoch,train_loss,eval_loss,eval_top1,eval_top5\n"


def timm_rows(scores: dict[int, object]) -> str:
    return "".join(f"{epoch},1.5,2.5,{score},99.0\n" for epoch, score in scores.items())


def test_vpt_lines_that_two_handlers_write_count_once(tmp_path: Path) -> None:
    twice = "".join(2 * line for line in vpt_log([50, 70, 60], epochs=6, val=[1, 2, 3]).splitlines(keepends=True))
    path = write(tmp_path / VTAB_LOG, twice)
    assert reason_of(imported("vpt", tmp_path, tmp_path / "results")).startswith("incomplete: 3 of 6 epochs; the last")
    path.write_text(twice.replace("/ 6 epoch", "/ 3 epoch").replace("'TOTAL_EPOCH': 6", "'TOTAL_EPOCH': 3"))
    record = record_of(imported("vpt", tmp_path, tmp_path / "results"))
    assert (record.final_test_acc, record.best_test_acc, record.best_test_epoch) == (0.6, 0.7, 1)


def test_vpt_takes_the_epoch_from_the_line_above(tmp_path: Path) -> None:
    lines = vpt_log([0, 70, 0, 60], epochs=4).splitlines(keepends=True)
    batches = "[03/01 10:00:00][INFO] visual_prompt:  190: \tTraining 100/169. train loss: 5.2\t0.1 s / batch.\n"
    lines.insert(-1, batches)
    write(tmp_path / VTAB_LOG, "".join(line for line in lines if "top1: 0.00" not in line))
    record = record_of(imported("vpt", tmp_path, tmp_path / "results"))
    assert (record.final_test_acc, record.best_test_acc, record.best_test_epoch) == (0.6, 0.7, 1)


def test_vpt_skips_a_job_that_scored_nothing(tmp_path: Path) -> None:
    write(tmp_path / VTAB_LOG, vpt_log([], epochs=2, SEED="1") + vpt_log([50, 60], epochs=2, SEED="2"))
    record = record_of(imported("vpt", tmp_path, tmp_path / "results"))
    assert (record.final_test_acc, record.seed, "further jobs" in record.origin_note) == (0.6, 2, False)


def test_vpt_does_not_mix_test_sets(tmp_path: Path) -> None:
    other = (
        "[03/01 10:00:00][INFO] visual_prompt:  104: Classification results with test_CUB-C: top1: 40.00\ttop5: 9.0\n"
    )
    write(tmp_path / FGVC_LOG, vpt_log([50], epochs=1, name="CUB") + other)
    assert "it scores several test sets: CUB and CUB-C" in reason_of(imported("vpt", tmp_path, tmp_path / "results"))


def test_vpt_without_a_number_in_the_end_has_no_final_accuracy(tmp_path: Path) -> None:
    log = vpt_log([50, 61, 62], epochs=3).replace("62.00", "nan").replace("'TOTAL_EPOCH'", "'E'")
    write(tmp_path / VTAB_LOG, log)
    reason = reason_of(imported("vpt", tmp_path, tmp_path / "results"))
    assert reason.startswith("incomplete: 2 of 3 epochs, after epoch 3 the accuracy is not a number")


def test_timm_counts_the_epochs_of_the_cool_down(tmp_path: Path) -> None:
    path = write(tmp_path / "summary.csv", TIMM_HEADER + timm_rows({99: 90.0, 105: 91.0}))
    arguments = write(tmp_path / "args.yaml", "epochs: 100\ncooldown_epochs: 10\nsched: cosine\nwarmup_epochs: 5\n")
    with pytest.raises(InputError, match="incomplete: 106 of 110 epochs"):
        imported("timm", path, tmp_path / "results", **TIMM)
    for text in (
        "epochs: 106\ncooldown_epochs: 10\nsched: step\n",
        "epochs: 25\nlr_cycle_limit: 2\nlr_cycle_mul: 3.0\ncooldown_epochs: 1\nwarmup_prefix: true\nwarmup_epochs: 5\n",
    ):
        arguments.write_text(text)
        assert record_of(imported("timm", path, tmp_path / "results", dry_run=True, **TIMM)).final_test_acc == 0.91


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (timm_rows({0: 50.0, 1: 60.0, 2: "nan"}), "incomplete: 2 epochs, then the accuracy is nan, no number"),
        (
            timm_rows({0: 50.0, 1: 60.0, 2: 70.0}) + TIMM_HEADER + timm_rows({0: 10.0, 1: 20.0}),
            "incomplete: 2 of 3 epochs, as many as an earlier attempt in it reached; the last test accuracy is 20.00 %",
        ),
    ],
)
def test_timm_without_arguments_is_not_finished_for_certain(rows: str, reason: str, tmp_path: Path) -> None:
    path = write(tmp_path / "summary.csv", TIMM_HEADER + rows)
    with pytest.raises(InputError, match=reason):
        imported("timm", path, tmp_path / "results", **TIMM)


def test_adapter_plus_that_ends_in_no_number_has_no_final_accuracy(tmp_path: Path) -> None:
    folder = tmp_path / "output/vtab/adapter_plus_dim8/dtd/seed=18/logs"
    write(folder / "hparams.yaml", "cfg: {data: {dataset: dtd, val_split: test}}\n")
    write(folder / "metrics.csv", "epoch,val/accuracy,train/loss\n9,0.7,\n10,,0.1\n19,nan,\n20,,0.1\n")
    assert "then the accuracy is nan" in reason_of(imported("adapter-plus", tmp_path, tmp_path / "results"))


@pytest.mark.parametrize(("name", "method"), [("finetune", "full"), ("classifier", "linear"), ("vpt", "vpt")])
def test_adapter_plus_names_methods_and_the_training_split(name: str, method: str, tmp_path: Path) -> None:
    folder = tmp_path / f"output/vtab/{name}/dtd/seed=18/logs"
    write(
        folder / "hparams.yaml", f"cfg: {{name: {name}, data: {{dataset: dtd, train_split: train, val_split: test}}}}\n"
    )
    write(folder / "metrics.csv", "epoch,val/accuracy\n99,0.7\n")
    record = record_of(imported("adapter-plus", tmp_path, tmp_path / "results"))
    assert (record.method, record.origin_note.split(";")[0]) == (method, "trained on train only")


def test_ablations_of_adapter_plus_are_never_test_results(tmp_path: Path) -> None:
    write(tmp_path / "output/ablations/position/pre-adapter/eval.log", "dtd\t18\t0.7\n")
    reason = reason_of(imported("adapter-plus", tmp_path, tmp_path / "results"))
    assert reason == "dtd, seed 18: the ablations are scored on val, never on test"


def test_ship_takes_the_arguments_of_the_attempt_that_wrote_the_rows(tmp_path: Path) -> None:
    later = SHIP_HEADER.replace("--seed 1", "--seed 2").replace("--lr 0.01", "--lr 0.5")
    write(tmp_path / "log.txt", SHIP_HEADER + json_lines({0: 10, 30: 75}) + later)
    record = record_of(imported("ship", tmp_path, tmp_path / "results"))
    assert (record.seed, record.settings["lr"], record.final_test_acc) == (1, 0.01, 0.75)


def test_ship_without_a_stated_decay_counts_no_backbone(tmp_path: Path) -> None:
    block = "Max accuracy found: 70.5\nLog file path: saves/dtd/mine/log.txt\nDetails: n_parameters=85892389\n"
    write(tmp_path / "results_summary.txt", block)
    record = record_of(imported("ship", tmp_path, tmp_path / "results"))
    assert (record.trainable_params, record.params_as_written) == (93_733, 85_892_389)


def test_vpetl_reads_lines_behind_a_progress_bar_and_colours(tmp_path: Path) -> None:
    bar = " 50%|█████     | 8/16 [00:01<00:01]\r100%|██████████| 16/16 [00:02<00:00]"
    lines = [SPACE, "{'epochs': 10}", "9 0.5 memory: 1MB", "end"]
    write(tmp_path / "training.log", "".join(f"{bar}\x1b[32m{STAMP}{line}\x1b[0m\n" for line in lines))
    assert record_of(imported("vpetl", tmp_path, tmp_path / "results")).final_test_acc == 0.5


def test_vpetl_names_the_run_without_an_accuracy(tmp_path: Path) -> None:
    lines = [SPACE, "{'epochs': 10}", "9 0.5 memory: 1MB", "end", SPACE, "{'epochs': 10}"]
    write(tmp_path / "training.log", "".join(f"{STAMP}{line}\n" for line in lines))
    reason = reason_of(imported("vpetl", tmp_path, tmp_path / "results"))
    assert reason.startswith("the last run in it logs no accuracy: it ended before its first one")


def zipped(name: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, "x")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (gzip.compress(vpt_log([50], epochs=1).encode()), "it is a gzip archive; unpack it"),
        (zipped("logs.txt"), "it is a zip archive; unpack it"),
        (zipped("[Content_Types].xml"), "it is a spreadsheet or another document of Office; save its table as CSV"),
        (b"\xfd7zXZ\x00\x00\x04", "it is an xz archive; unpack it"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n", "it is a Git LFS pointer"),
        (b"\0" * 4096, "it holds nothing but zero bytes"),
    ],
)
@pytest.mark.parametrize("harness", ["vpt", "csv"])
def test_a_file_that_is_wrapped_is_named_as_what_it_is(
    harness: str, content: bytes, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "logs.txt"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        imported(harness, path, tmp_path / "results")
    assert f"{path} cannot be imported: {reason}" in str(caught.value)


def test_results_behind_links_are_read_once(tmp_path: Path) -> None:
    scratch, saves = tmp_path / "scratch", tmp_path / "saves"
    write(scratch / "dtd_adapter/config.yaml", NOAH_CONFIG.format(epochs=1, mode="retrain"))
    write(scratch / "dtd_adapter/log.txt", json_lines({0: 10}))
    write(saves / "svhn/config.yaml", NOAH_CONFIG.format(epochs=1, mode="retrain").replace("dtd", "svhn"))
    write(saves / "svhn/log.txt", json_lines({0: 20}))
    for link, target in (("dtd", scratch / "dtd_adapter"), ("latest", saves / "svhn"), ("up", tmp_path)):
        (saves / link).symlink_to(target, target_is_directory=True)
    outcomes = imported("noah", saves, tmp_path / "results")
    assert [(outcome.state, outcome.file) for outcome in outcomes] == [
        ("imported", saves / "dtd/log.txt"),
        ("imported", saves / "svhn/log.txt"),
    ]


def test_a_file_that_names_its_delimiter_and_counts_with_a_comma(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "sep=;\nmethod;task;accuracy;params\nA;dtd;60,5;0,29M\nB;dtd;61;294912.0\n")
    records = [outcome.record for outcome in imported("csv", path, tmp_path / "results") if outcome.record]
    assert [(r.stated_acc, r.params_as_written) for r in records] == [(0.605, 290_000), (0.61, 294_912)]


@pytest.mark.parametrize("count", ["294.912", "294.000", "1.234.567"])
def test_a_point_between_thousands_is_no_decimal_point(count: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", f"method,task,accuracy,params\nA,dtd,60,{count}\n")
    with pytest.raises(InputError, match=f"params '{count}' is not a count"):
        imported("csv", path, tmp_path / "results")


@pytest.mark.parametrize("count", ["0.13M", "128,303"])
def test_a_count_of_parameters_in_another_unit_is_not_read_in_part(count: str, tmp_path: Path) -> None:
    write(tmp_path / VTAB_LOG, vpt_log([50], epochs=1).replace("128303", count))
    write(tmp_path / "noah/config.yaml", NOAH_CONFIG.format(epochs=1, mode="retrain"))
    write(tmp_path / "noah/log.txt", json_lines({0: 10}, n_parameters=1.53))
    lines = [SPACE, "{'epochs': 10}", f"number of extra params: {count}", "9 0.5 memory: 1MB", "end"]
    write(tmp_path / "training.log", "".join(f"{STAMP}{line}\n" for line in lines))
    counts = [
        record_of(imported(harness, tmp_path, tmp_path / "results")).trainable_params
        for harness in ("vpt", "noah", "vpetl")
    ]
    assert counts == [0, 0, 130_000 if "M" in count else 0]
