"""Traps in the files of other harnesses: appended logs, repeated headers, units, epochs and heads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shipbench.errors import InputError
from shipbench.record import RunRecord
from shipbench.report.analysis.normalise import uniform_records
from shipbench.results.foreign.importing import Outcome
from shipbench.results.loading import load_history, load_results
from tests.results.foreign.trees import imported, json_lines, osu_result, vpt_log, write

FGVC_LOG = "out/CUB/sup_vitb16_imagenet21k/lr0.25_wd0.001/run1/logs.txt"
VTAB_LOG = "out_finalfinal/vtab-dtd/sup_vitb16_imagenet21k/lr0.25_wd0.001/run3/logs.txt"
NOAH_CONFIG = "data_set: dtd\nepochs: {epochs}\nis_adapter: true\nmode: {mode}\nseed: 3\nlr: 0.001\n"
SHIP_HEADER = "--epochs 31 --weight_decay 0.1 --lr 0.01 --data_set svhn --seed 1 --cfg x/ViT-B_prompt_50.yaml\n"


def record_of(outcomes: list[Outcome]) -> RunRecord:
    (outcome,) = outcomes
    assert outcome.state == "imported", outcome.reason
    assert outcome.record is not None
    return outcome.record


def reason_of(outcomes: list[Outcome]) -> str:
    (outcome,) = outcomes
    assert outcome.state == "skipped"
    return outcome.reason


def test_osu_percent_is_never_guessed(tmp_path: Path) -> None:
    osu_result(tmp_path / "osu", "clevr_count", "fact_tk", 0.9, 1.0)
    record = record_of(imported("osu", tmp_path / "osu", tmp_path / "results"))
    assert (record.final_test_acc, record.best_test_acc) == pytest.approx((0.009, 0.01))
    # The harness leaves out the head: 769 parameters for each of 8 classes.
    assert record.trainable_params - record.trainable_params_without_head == 769 * 8
    assert record.seed == -1


def test_osu_experiments_beside_vtab_keep_their_names(tmp_path: Path) -> None:
    content = json.dumps({"avg_acc": 90.0, "avg_best_acc": 91.0, "inserted_parameters": 0, "best_tune": {}})
    write(tmp_path / "osu/tune_output/cifar100_1k_aug_normalized/cifar100/1k/lora_8/final_result.json", content)
    record = record_of(imported("osu", tmp_path / "osu", tmp_path / "results"))
    assert (record.task, record.suite) == ("cifar100/1k", "")
    content = content.replace("90.0", "80.0")
    write(tmp_path / "osu/tune_output/cifar100_tune_lrwd/processed_vtab/cifar100/lora/final_result.json", content)
    suites = {outcome.record.suite for outcome in imported("osu", tmp_path, tmp_path / "results") if outcome.record}
    assert suites == {""}


def test_a_mean_of_several_osu_runs_is_noted(tmp_path: Path) -> None:
    file = osu_result(tmp_path / "osu", "dtd", "lora", 60.0, 61.0)
    header = "run_idx,train_loss,test_top1\n"
    write(file.with_name("final_summary.csv"), f"{header}0,1,50\n{header}0,1,59\n1,1,61\n")
    assert "mean of 2 runs" in record_of(imported("osu", tmp_path / "osu", tmp_path / "results")).origin_note


def test_vpt_reads_the_first_job_of_a_log(tmp_path: Path) -> None:
    log = vpt_log([50, 70, 60], epochs=3, SEED="None") + vpt_log([90, 90, 90], epochs=3)
    write(tmp_path / VTAB_LOG, log)
    record = record_of(imported("vpt", tmp_path, tmp_path / "results"))
    assert (record.final_test_acc, record.best_test_acc, record.best_test_epoch) == (0.6, 0.7, 1)
    # run3 of the final runs has the third of the authors' seeds.
    assert record.seed == 82
    assert "further jobs" in record.origin_note


def test_the_final_runs_of_vpt_have_the_seeds_of_its_script(tmp_path: Path) -> None:
    for run in range(1, 7):
        write(tmp_path / VTAB_LOG.replace("run3", f"run{run}"), vpt_log([50 + run], epochs=1, SEED="None"))
    seeds = [outcome.record.seed for outcome in imported("vpt", tmp_path, tmp_path / "results") if outcome.record]
    assert seeds == [42, 44, 82, 100, 800, -1]


def test_vpt_validation_on_vtab_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / VTAB_LOG, vpt_log([50, 70, 60], epochs=3, val=[90, 99, 100]))
    write(tmp_path / FGVC_LOG, vpt_log([50, 70, 60], epochs=3, val=[50, 40, 30], name="CUB"))
    outcomes = imported("vpt", tmp_path, tmp_path / "results")
    runs = {outcome.record.task: outcome.record.run_id for outcome in outcomes if outcome.record}
    histories = {task: load_history(tmp_path / "results", [run]) for task, run in runs.items()}
    splits = {task: set(history["split"]) for task, history in histories.items()}
    assert splits == {"dtd": {"test"}, "CUB": {"test", "val"}}
    assert histories["dtd"]["epoch"].tolist() == [0, 1, 2]
    assert histories["dtd"]["accuracy"].tolist() == [0.5, 0.7, 0.6]


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        (
            {
                "TRANSFER_TYPE": "'P_VK'",
                "P_VK": "{'PATH': '',\n  'DEEP_P': True,\n  'NUM_TOKENS': 5,\n  'NUM_TOKENS_P': 20,\n  'PROJECT': -1}",
            },
            {"deep_p": True, "num_tokens": 5, "num_tokens_p": 20},
        ),
        (
            {"TRANSFER_TYPE": "'adapter'", "ADAPTER": "CfgNode({'REDUCATION_FACTOR': 64, 'STYLE': 'Pfeiffer'})"},
            {"reducation_factor": 64, "style": "Pfeiffer"},
        ),
        (
            {"LINEAR": "{'DROPOUT': 0.3}", "PROMPT": "CfgNode({'DROPOUT': 0.1, 'PROJECT': 100, 'NUM_TOKENS': 10})"},
            {"num_tokens": 10, "dropout": 0.1, "project": 100},
        ),
        ({"PROMPT": "{'DROPOUT': 0.0, 'PROJECT': -1}"}, {"num_tokens": 10}),
    ],
)
def test_vpt_settings_tell_the_runs_of_a_method_apart(
    config: dict[str, str], settings: dict[str, object], tmp_path: Path
) -> None:
    write(tmp_path / VTAB_LOG, vpt_log([50], epochs=1, **config))
    record = record_of(imported("vpt", tmp_path, tmp_path / "results"))
    assert dict(record.settings) == {"lr": 0.25, "weight_decay": 0.001, "batch_size": 64, **settings}


@pytest.mark.parametrize(("feature", "trained"), [("sup_vitb16_imagenet21k", 128_303 - 769 * 47), ("swinb_22k_224", 0)])
def test_the_head_of_another_backbone_is_not_subtracted(feature: str, trained: int, tmp_path: Path) -> None:
    write(tmp_path / VTAB_LOG, vpt_log([50], epochs=1, FEATURE=f"'{feature}'"))
    record = record_of(imported("vpt", tmp_path, tmp_path / "results"))
    assert (record.trainable_params, record.trainable_params_without_head) == (128_303, trained)


def test_a_log_of_vpt_with_other_scores_is_not_called_unfinished(tmp_path: Path) -> None:
    log = vpt_log([50], epochs=1).replace("top1: 50.00", "zsl_unseen: 0.52")
    write(tmp_path / VTAB_LOG, log)
    assert "or logs other scores" in reason_of(imported("vpt", tmp_path, tmp_path / "results"))


def test_vpt_patience_completes_a_log(tmp_path: Path) -> None:
    log = vpt_log([50, 40], epochs=9)
    path = write(tmp_path / VTAB_LOG, log)
    assert "incomplete: 2 of 9 epochs" in reason_of(imported("vpt", tmp_path, tmp_path / "results"))
    path.write_text(log + "[03/01 10:00:00][INFO] visual_prompt: 1: No improvement. Breaking out of loop.\n")
    assert record_of(imported("vpt", tmp_path, tmp_path / "results")).final_test_acc == 0.4


def test_noah_counts_epochs_from_zero(tmp_path: Path) -> None:
    write(tmp_path / "noah/config.yaml", NOAH_CONFIG.format(epochs=31, mode="super"))
    log = write(tmp_path / "noah/log.txt", json_lines({0: 10, 10: 50, 20: 40}) + '{"test_acc1": 9')
    reason = reason_of(imported("noah", tmp_path / "noah", tmp_path / "results"))
    assert reason.startswith("incomplete: 21 of 31 epochs, the last line is cut off")
    log.write_text(json_lines({0: 10, 10: 50, 20: 40, 30: 45}))
    record = record_of(imported("noah", tmp_path / "noah", tmp_path / "results"))
    assert (record.method, record.seed, record.best_test_epoch, record.final_test_acc) == ("adapter", 3, 10, 0.45)
    assert record.trainable_params_without_head == 128_303 - 769 * 47


def test_noah_search_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "noah/config.yaml", NOAH_CONFIG.format(epochs=1, mode="search"))
    write(tmp_path / "noah/log.txt", json_lines({0: 10}))
    assert "val200" in reason_of(imported("noah", tmp_path / "noah", tmp_path / "results"))


def test_few_shot_sets_are_no_tasks_of_vtab(tmp_path: Path) -> None:
    config = NOAH_CONFIG.format(epochs=1, mode="super").replace("dtd", "oxford_flowers102")
    folder = tmp_path / "saves" / "few-shot_oxford-flowers102_shot-4_seed-0-lr-0.005-wd-0.0001_adapter"
    write(folder / "config.yaml", config)
    write(folder / "log.txt", json_lines({0: 80}))
    record = record_of(imported("noah", tmp_path / "saves", tmp_path / "results"))
    assert (record.task, record.suite) == ("few-shot oxford_flowers102", "")


def test_a_resumed_ship_log_keeps_its_maximum(tmp_path: Path) -> None:
    log = SHIP_HEADER + json_lines({0: 10, 10: 84}) + SHIP_HEADER + json_lines({20: 70, 30: 75}, max_accuracy=75)
    write(tmp_path / "ship/log.txt", log)
    record = record_of(imported("ship", tmp_path / "ship", tmp_path / "results"))
    assert (record.final_test_acc, record.best_test_acc) == (0.75, 0.84)
    assert record.settings == {"lr": 0.01, "weight_decay": 0.1, "prompt_length": 50}


def test_the_levels_of_a_ship_log_are_those_of_the_record(tmp_path: Path) -> None:
    write(tmp_path / "ship/log.txt", SHIP_HEADER + json_lines({30: 75}, prompt_indices=[0, 3, 7]))
    record = record_of(imported("ship", tmp_path / "ship", tmp_path / "results"))
    assert (record.levels, record.settings["levels"]) == ("[0, 3, 7]", [0, 3, 7])


def test_a_ship_log_that_starts_over_counts_from_there(tmp_path: Path) -> None:
    log = SHIP_HEADER + json_lines({0: 10, 10: 84}) + SHIP_HEADER + json_lines({0: 20, 30: 75})
    write(tmp_path / "ship/log.txt", log)
    assert record_of(imported("ship", tmp_path / "ship", tmp_path / "results")).best_test_acc == 0.75


def test_ship_without_weight_decay_counts_no_backbone(tmp_path: Path) -> None:
    header = SHIP_HEADER.replace("--weight_decay 0.1", "--weight_decay 0.0")
    write(tmp_path / "ship/log.txt", header + json_lines({30: 75}, n_parameters=85_798_656 + 93_733))
    record = record_of(imported("ship", tmp_path / "ship", tmp_path / "results"))
    assert (record.trainable_params, record.params_as_written) == (93_733, 85_892_389)


def test_adapter_plus_needs_the_test_split(tmp_path: Path) -> None:
    folder = tmp_path / "output/vtab/adapter_plus_dim8/dtd/seed=1/logs"
    write(folder / "hparams.yaml", "cfg: {data: {dataset: dtd, val_split: val}, seed: 1}\n")
    write(folder / "metrics.csv", "epoch,val/accuracy\n0,0.5\n")
    assert "val_split is val" in reason_of(imported("adapter-plus", tmp_path, tmp_path / "results"))


def test_adapter_plus_reads_a_run_once(tmp_path: Path) -> None:
    folder = tmp_path / "output/vtab/adapter_plus_dim8"
    hparams = "cfg: {data: {dataset: dtd, val_split: test}, seed: 1, name: adapter_plus_dim8}\n"
    write(folder / "dtd/seed=1/logs/hparams.yaml", hparams)
    write(folder / "dtd/seed=1/logs/metrics.csv", "epoch,val/accuracy\n0,\n99,0.7\n")
    write(folder / "eval.log", "dtd\t1\t0.7000\nsvhn\t1\t0.8\nsvhn\t1\t0.9\n")
    outcomes = imported("adapter-plus", tmp_path, tmp_path / "results")
    accuracies = {o.record.task: o.record.final_test_acc for o in outcomes if o.state == "imported" and o.record}
    assert accuracies == {"dtd": 0.7, "svhn": 0.9}


def test_adapter_plus_keeps_the_rank_of_lora_and_the_backbone(tmp_path: Path) -> None:
    folder = tmp_path / "output/vtab/lora/dtd/seed=1/logs"
    hparams = "cfg: {data: {dataset: dtd, val_split: test}, lora: {rank: 4}, adapter: null, name: lora, seed: 1,"
    hparams += " vit: {model: vit_large_patch16_224}}\ntrainable_params: 300000\n"
    write(folder / "hparams.yaml", hparams)
    write(folder / "metrics.csv", "epoch,val/accuracy\n99,0.5\n")
    record = record_of(imported("adapter-plus", tmp_path, tmp_path / "results"))
    assert record.settings == {"lora.rank": 4}
    assert (record.trainable_params, record.trainable_params_without_head) == (300_000, 0)


def test_adapter_plus_names_the_tasks_of_fgvc(tmp_path: Path) -> None:
    names = ("cub", "nabirds", "oxfordflower", "stanforddogs", "stanfordcars")
    write(tmp_path / "output/fgvc/adapter_plus_dim8/eval.log", "".join(f"{name}\t1\t0.7000\n" for name in names))
    outcomes = imported("adapter-plus", tmp_path, tmp_path / "results")
    assert [(o.record.task, o.record.suite) for o in outcomes if o.record] == [(name, "fgvc") for name in names]
    known = uniform_records(load_results(tmp_path / "results"))
    assert set(known["task"]) == {"cub-200-2011", "nabirds", "oxford-flowers", "stanford-dogs", "stanford-cars"}
    assert set(known["suite"]) == {"fgvc"}


def test_adapter_plus_keeps_the_names_of_other_data(tmp_path: Path) -> None:
    folder = tmp_path / "output/fgvc/adapter_plus_dim8"
    hparams = "cfg: {data: {dataset: dtd, dataset_group: fgvc, val_split: test}, train: {epochs: 9}, seed: 1}\n"
    hparams += "trainable_params: 236143\nnum_classes: 200\n"
    write(folder / "dtd/seed=1/logs/hparams.yaml", hparams)
    metrics = write(folder / "dtd/seed=1/logs/metrics.csv", "epoch,val/accuracy\n5,0.7\n")
    write(folder / "eval.log", "pet\t1\t0.7000\n")
    unread, read = sorted(imported("adapter-plus", tmp_path, tmp_path / "results"), key=lambda o: o.state == "imported")
    assert "incomplete: 6 of 9 epochs" in unread.reason
    metrics.write_text("epoch,val/accuracy\n8,0.7\n")
    run, line = imported("adapter-plus", tmp_path, tmp_path / "results")
    places = [(o.record.task, o.record.suite) for o in (run, line, read) if o.record]
    assert places == [("dtd", "fgvc"), ("pet", "fgvc"), ("pet", "fgvc")]
    assert run.record is not None
    assert (run.record.num_classes, run.record.trainable_params) == (200, 236_143)
    assert run.record.trainable_params_without_head == 236_143 - 769 * 200


def test_vpetl_reads_the_last_run_of_a_log(tmp_path: Path) -> None:
    stamp = "2024-07-25 10:00:00,000 - training - INFO - "
    space = "Namespace(seed=4, lr=0.1, wd=0.01, topN=8, dataset='kitti', task='vtab', model_type='vit_lora')"
    first = [space.replace("seed=4", "seed=3"), "9 0.9 memory: 1MB", "end"]
    second = [space, "{'epochs': 20, 'class_num': 4}", "number of extra params: 0.3M", "9 0.5 memory: 1MB"]
    path = tmp_path / "output/vit_lora/vtab/x/training.log"
    write(path, "".join(f"{stamp}{line}\n" for line in first + second))
    assert "incomplete: 10 of 20 epochs" in reason_of(imported("vpetl", tmp_path, tmp_path / "results"))
    log = "".join(f"{stamp}{line}\n" for line in [*first, *second, "19 0.4 memory: 1MB", "end"])
    write(path, log.replace("seed=4", "seed=4, model='swin_base_patch4'"))
    record = record_of(imported("vpetl", tmp_path, tmp_path / "results", dry_run=True))
    assert (record.trainable_params, record.trainable_params_without_head) == (300_000, 0)
    for text, suite in ((log, "vtab-1k"), (log.replace("'kitti'", "'mine'").replace("0.3M", "300000"), "")):
        write(path, text)
        record = record_of(imported("vpetl", tmp_path, tmp_path / "results"))
        assert (record.final_test_acc, record.best_test_acc, record.best_test_epoch) == (0.4, 0.5, 9)
        assert (record.seed, record.settings) == (4, {"lr": 0.1, "wd": 0.01, "topN": 8})
        assert (record.suite, record.num_classes) == (suite, 4)
        assert (record.trainable_params, record.trainable_params_without_head) == (300_000, 300_000 - 769 * 4)
    # An option that was not given leaves the value of the configuration.
    write(path, log.replace("topN=8", "topN=None").replace("'class_num': 4}", "'class_num': 4, 'topN': 96}"))
    assert record_of(imported("vpetl", tmp_path, tmp_path / "results")).settings == {"lr": 0.1, "wd": 0.01, "topN": 96}


def test_vpetl_with_a_last_accuracy_that_is_no_number_has_no_final_one(tmp_path: Path) -> None:
    messages = ["Namespace(seed=4, dataset='kitti', task='vtab', model_type='vit_lora')", "{'epochs': 20}"]
    messages += ["9 0.5 memory: 1MB", "19 nan memory: 1MB", "end"]
    log = "".join(f"2024-07-25 10:00:00,000 - training - INFO - {message}\n" for message in messages)
    write(tmp_path / "output/vit_lora/vtab/x/training.log", log)
    reason = reason_of(imported("vpetl", tmp_path, tmp_path / "results"))
    assert "incomplete: 10 of 20 epochs, then the accuracy is nan, no number" in reason


def test_timm_asks_for_method_and_task(tmp_path: Path) -> None:
    path = write(tmp_path / "summary.csv", "epoch,train_loss,eval_top1\n0,1,50\nepoch,train_loss,eval_top1\n1,1,0.9\n")
    with pytest.raises(InputError, match="--method and --task"):
        imported("timm", path, tmp_path / "results")
    record = record_of(imported("timm", path, tmp_path / "results", method="ssf", task="cifar"))
    assert (record.task, record.final_test_acc, record.best_test_acc) == ("cifar100", pytest.approx(0.009), 0.5)
    assert "counts as the final one" in record.origin_note
    write(tmp_path / "args.yaml", "epochs: 3\n")
    with pytest.raises(InputError, match="incomplete: 2 of 3 epochs"):
        imported("timm", path, tmp_path / "results", method="ssf", task="cifar")


def test_equal_logs_of_two_seeds_are_two_results(tmp_path: Path) -> None:
    for run in ("run1", "run2"):
        write(tmp_path / VTAB_LOG.replace("run3", run), vpt_log([50], epochs=1, SEED="None"))
    records = [outcome.record for outcome in imported("vpt", tmp_path, tmp_path / "results")]
    assert len({(record.run_id, record.seed) for record in records if record}) == 2


def test_files_that_are_not_what_they_seem_are_listed(tmp_path: Path) -> None:
    osu_result(tmp_path / "osu", "dtd", "lora", 60.0, 61.0)
    write(tmp_path / "osu/tune_output/default_vtab/processed_vtab/svhn/lora/final_result.json", "{broken")
    outcomes = imported("osu", tmp_path / "osu", tmp_path / "results")
    assert [outcome.state for outcome in outcomes] == ["imported", "skipped"]
    assert "cannot be read" in outcomes[1].reason


def test_a_folder_without_files_of_the_harness_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no logs\.txt"):
        imported("vpt", tmp_path, tmp_path / "results")
    with pytest.raises(InputError, match="does not exist"):
        imported("vpt", tmp_path / "absent", tmp_path / "results")


def test_a_percentage_where_fractions_belong_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "adapter_plus_dim8/eval.log", "dtd\t18\t70.43\n")
    assert "70.43, not a fraction" in reason_of(imported("adapter-plus", tmp_path, tmp_path / "results"))


def test_the_first_of_equally_good_epochs_is_the_best(tmp_path: Path) -> None:
    write(tmp_path / VTAB_LOG, vpt_log([50, 70, 70, 60], epochs=4))
    assert record_of(imported("vpt", tmp_path, tmp_path / "results")).best_test_epoch == 1


def test_folders_of_other_names_are_no_task_of_osu(tmp_path: Path) -> None:
    for folder, method in (("vpt_deep", "vpt-deep"), ("vpt_shallow", "vpt-shallow")):
        path = write(tmp_path / f"downloads/{folder}/final_result.json", '{"avg_acc": 60.0}')
        with pytest.raises(InputError, match="does not state its task; name it with --task"):
            imported("osu", path, tmp_path / "results")
        record = record_of(imported("osu", path, tmp_path / "results", task="dtd"))
        assert (record.task, record.method, record.final_test_acc) == ("dtd", method, 0.6)


def test_a_test_run_of_osu_is_no_result(tmp_path: Path) -> None:
    osu_result(tmp_path / "osu", "dtd", "lora", 60.0, 61.0)
    (tmp_path / "osu/tune_output").rename(tmp_path / "osu/tune_output_test")
    assert "a test run of the harness" in reason_of(imported("osu", tmp_path / "osu", tmp_path / "results"))


def test_ship_states_its_arguments_in_its_log(tmp_path: Path) -> None:
    write(tmp_path / "ship/config.yaml", "seed: 9\ndata_set: dtd\nepochs: 99\n")
    second = SHIP_HEADER.replace("--seed 1", "--seed 2")
    log = SHIP_HEADER + json_lines({0: 10}) + second + json_lines({30: 75}, n_parameters=85_892_389)
    write(tmp_path / "ship/log.txt", log)
    record = record_of(imported("ship", tmp_path / "ship", tmp_path / "results"))
    assert (record.seed, record.task) == (2, "svhn")
    # The optimiser holds the frozen backbone without weight decay alone.
    assert record.trainable_params == 85_892_389
