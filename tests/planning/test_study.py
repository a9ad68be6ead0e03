"""Study files, the grid that they mean, its cost, and locks."""

from __future__ import annotations

import shutil
from dataclasses import replace
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from shipbench import RunSpec, run
from shipbench.backbones import load_backbone
from shipbench.data.corruptions import parse_corruptions
from shipbench.errors import InputError
from shipbench.hardware.flops import count_flops
from shipbench.methods import list_methods
from shipbench.planning.plan import PlannedRun, State
from shipbench.planning.study.cost import Rates, estimate, mean_of_points, measured_rates, passes, planned_passes, total
from shipbench.planning.study.file import (
    AblatePart,
    Defaults,
    EvaluatePart,
    ExplainPart,
    FollowUp,
    ReportPart,
    RunPart,
    TunePart,
    choose_parts,
    located,
    read_study,
)
from shipbench.planning.study.flops import plain_vit_flops, planned_image_size
from shipbench.planning.study.follow_ups import own_task, plan_follow_up, request_follow_up
from shipbench.planning.study.grid import PartDecision, StudyGrid, plan_without_records, winners
from shipbench.planning.study.lock import differences, extended, make_lock
from shipbench.planning.study.parts import request
from shipbench.planning.tuning import Choice, Decision
from shipbench.results.loading import load_rows
from shipbench.results.store import Store
from shipbench.settings import field_names
from shipbench.tasks import parse_tasks
from tests.data.builders import vtab_tree
from tests.results.test_store import make_record
from tests.tasks.pictures import image_folder

STUDIES = Path(__file__).parents[2] / "studies"
BASE = RunSpec("ship", "demo-tiny")


def written(folder: Path, text: str) -> Path:
    file = folder / "paper.toml"
    file.write_text(text, encoding="utf-8")
    return file


def grid_of(file: Path) -> StudyGrid:
    return plan_without_records(request(read_study(file), BASE, None, without_data=True), "no data")


def test_lists_and_tables_mean_what_options_mean(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        [study]
        tasks = ["dtd", "svhn"]
        set = { eval_every = 10, full.lr = 0.1, ship.prompt_length = 5 }
        [[run]]
        methods = ["ship", "linear"]
        seeds = [0, 2]
        shots = 4
        [[ablate]]
        name = "length"
        sweep.prompt_length = [1, 5]
        product = true
        [[tune]]
        methods = "full"
        tasks = "dtd"
        axes = { full.lr = [0.1, 0.2], epochs = [3] }
        set = { full.weight_decay = 0.5, full.lr = 0.2 }
        """,
    )
    run, ablate, tune = read_study(file).parts
    assert isinstance(run, RunPart)
    assert (run.name, run.methods, run.tasks, run.seeds, run.shots) == ("run-1", "ship,linear", "dtd,svhn", "0,2", "4")
    assert run.set == {"eval_every": 10, "ship.prompt_length": 5}
    assert isinstance(ablate, AblatePart)
    assert (ablate.name, ablate.sweep, ablate.product) == ("length", {"prompt_length": [1, 5]}, True)
    assert isinstance(tune, TunePart)
    assert (tune.tasks, tune.axes) == ("dtd", {"full.lr": [0.1, 0.2], "epochs": [3]})
    assert tune.set == {"eval_every": 10, "full.lr": 0.2, "full.weight_decay": 0.5}


def test_sets_and_patterns_of_methods_without_some(tmp_path: Path) -> None:
    text = """
    [[run]]
    tasks = "dtd"
    methods = ["all", "peft-lo*", "lora"]
    exclude = ["full", "vpt-*", "peft-lora"]
    """
    (part,) = read_study(written(tmp_path, text)).parts
    assert part.method_text.split(",") == ["linear", "ship", "peft-loha", "peft-lokr", "lora"]


@pytest.mark.parametrize("keys", [Defaults, RunPart, AblatePart, TunePart, EvaluatePart, ExplainPart, ReportPart])
def test_every_key_is_documented(keys: type[Any]) -> None:
    page = (STUDIES.parent / "docs/reference/study-file.md").read_text(encoding="utf-8")
    assert [name for name in field_names(keys) if f"`{name}`" not in page] == []


RUN = '[[run]]\nmethods = "linear"\ntasks = "dtd"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[study]\ntasks = 'all'", "has no runs; add a part"),
        ("[[runs]]\nmethods = 'ship'", "unknown section 'runs'"),
        ("[[runs]]\nmethods = 'ship'", "did you mean 'run'"),
        ("[run]\nmethods = 'ship'", r"not a list of tables; write \[\[run\]\]"),
        ("[[run]]\nmethds = 'ship'\ntasks = 'dtd'", "part 'run-1' .*unknown setting 'methds'.*did you mean 'methods'"),
        ("[study]\ntask = 'dtd'\n" + RUN, r"\[study\] of .*unknown setting 'task'.*did you mean 'tasks'"),
        ("[[run]]\nmethods = 'ship'", "part 'run-1' .*has no tasks"),
        ("[[run]]\ntasks = 'dtd'", "part 'run-1' .*has no methods"),
        ("[[run]]\ntasks = 'dtd'\nmethods = 'ship'\nexclude = 'ship'", "exclude ship leaves none of the methods ship"),
        ("[[run]]\ntasks = 'dtd'\nmethods = 'shipp'", "did you mean 'ship'"),
        (RUN + "epochs = 0", "epochs is 0; it must be 1 or more"),
        (RUN + "recipe = 'defautl'", "recipe='defautl' is not one of default, published"),
        (RUN + "set = 3", "set is 3; it must be a table"),
        (RUN + "name = 'a'\n" + RUN + "name = 'a'", "two parts called 'a'"),
        ("run = []", "has no runs; add a part"),
        ("run = []\n[[evaluate]]\ncorrupt = 'blur'", "has no runs; add a part"),
        ("[study]\nresult = 'r'\n" + RUN, r"\[study\] of .*unknown setting 'result'.*did you mean 'results'"),
        ("[[run]]\ntasks = 'dtd'\nmethods = ['ship', 'pefft-*']", "no method is called 'pefft-\\*'"),
        (RUN + "name = 'a,b'", "number 1 .*name is 'a,b'; write a text without commas"),
        (RUN + "[[report]]\noutput = 'r'\n[[report]]\noutput = './r/'", "two reports with the output 'r'"),
        (RUN + "[[report]]\nselect = 'final'", r"\[\[report\]\] .*has no output"),
        (
            RUN + "[[evaluate]]\ncorrupt = 'blur'",
            'part .evaluate-1. .*reads no runs; name their parts, as in of = "run-1"',
        ),
        (RUN + "[[explain]]\nof = 'run-2'", "there is no part 'run-2' with runs.*did you mean 'run-1'"),
        (RUN + "[[explain]]\nname = 'run-1'\nof = 'run-1'", "two parts called 'run-1'"),
        ("[study]\nresults = 3\n" + RUN, "results is 3; it must be the path of a folder"),
        ("[[run", "is not TOML"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_study(written(tmp_path, text))


def test_problems_of_all_parts_are_one_error(tmp_path: Path) -> None:
    ablate = "[[ablate]]\nname = 'b'\ntasks = 'dtd'\nsweep = { prompt_lenght = [1, 2] }\n"
    twice = "[[run]]\nname = 'a'\nmethods = 'full'\ntasks = 'dtd'\nepochs = 3\nset = { epochs = 4 }\n"
    with pytest.raises(InputError) as error:
        grid_of(written(tmp_path, twice + ablate))
    first, second = error.value.problems
    assert first.startswith("part 'a'")
    assert "epochs is given twice" in first
    assert second.startswith("part 'b'")
    assert "did you mean 'prompt_length'" in second


def test_each_problem_of_a_part_names_the_part(tmp_path: Path) -> None:
    part = "[[run]]\nname = 'a'\nmethods = 'shipp,linea'\ntasks = 'dtd'\n"
    with pytest.raises(InputError) as error:
        read_study(written(tmp_path, part))
    assert [problem.partition(" of ")[0] for problem in error.value.problems] == ["part 'a'", "part 'a'"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("--switch is empty", "switches is empty"),
        ("see 'shipbench list ablations --method ship'", "see 'shipbench list ablations --method ship'"),
        ("folder:bugs--tasks cannot be read", "folder:bugs--tasks cannot be read"),
        ("pass --data DIR", "pass --data DIR"),
    ],
)
def test_messages_name_keys_in_place_of_options_but_for_commands_and_paths(text: str, words: str) -> None:
    with pytest.raises(InputError, match=f"^here: {words}$"), located("here"):
        raise InputError(text)


def test_wrong_keys_of_all_parts_are_one_error(tmp_path: Path) -> None:
    run = "[[run]]\nname = 'a'\nmethods = 'shipp'\ntasks = 'dtd'\n"
    ablate = "[[ablate]]\nname = 'b'\ntasks = 'dtd'\nsweeps = 1\n"
    words = r"(?s)2 problems:\n- part 'a' .*'shipp'.*\n- part 'b' .*'sweeps'"
    with pytest.raises(InputError, match=words):
        read_study(written(tmp_path, run + ablate))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it names no images; add on"),
        ("severity = 2\non = 'dtd'", "severity needs corrupt"),
        ("corrupt = 'blurr'", "did you mean 'blur'"),
        ("on = 'dtd,svhn'", "names 2 tasks; name one"),
        ("on = 'folder:nowhere'", "nowhere"),
        ("corrupt = 'all'\nmethods = 'shipp'", "did you mean 'ship'"),
        ("corrupt = 'all'\nseeds = 'x'", "not a list of seeds"),
        ("corrupt = 'all'\ntasks = 'dtd,svhn'", "tasks: none of the runs that it reads has 'svhn'; choose from dtd"),
        ("of = 'tuned'\ncorrupt = 'all'", "no run of tuned is tested"),
    ],
)
def test_wrong_evaluations_are_refused(tmp_path: Path, text: str, words: str) -> None:
    of = "" if "of =" in text else "of = 'run-1'\n"
    tune = "[[tune]]\nname = 'tuned'\nmethods = 'linear'\ntasks = 'dtd'\ngrid = 'small'\nchoose_only = true\n"
    file = written(tmp_path, f"{RUN}{tune}[[evaluate]]\n{of}{text}")
    with pytest.raises(InputError, match=f"part 'evaluate-1' .*{words}"):
        grid_of(file)


def test_follow_ups_bring_the_parts_that_they_read(tmp_path: Path) -> None:
    text = f"{RUN}name = 'a'\n{RUN}name = 'b'\n[[explain]]\nname = 'c'\nof = 'b'\n"
    study = read_study(written(tmp_path, text))
    chosen = choose_parts(study, "c")
    assert [part.name for part in (*chosen.parts, *chosen.follow_ups)] == ["b", "c"]
    assert choose_parts(study, "a").follow_ups == ()


@pytest.mark.parametrize("part", [ExplainPart(name="x", of="a"), EvaluatePart(name="x", of="a", corrupt="blur")])
def test_a_run_without_weights_has_no_outputs(tmp_path: Path, part: FollowUp) -> None:
    store = Store(tmp_path)
    store.write(make_record(run_id="a1", method="full", trainable_params=7, total_params=7))
    runs = [PlannedRun(RunSpec("full", "dtd", seed=seed), f"a{seed}", State.DONE) for seed in (1, 2)]
    requested = request_follow_up(part, [run.spec for run in runs])
    section = plan_follow_up(requested, runs, [], lambda run: run.run_id == "a2", store)
    assert (section.left, section.waiting, len(section.refused)) == (0, section.requested.count, 1)
    assert section.refusal.startswith(f"x: 1 of 2 runs has no {part.noun}: run a1 (full) keeps no weights")
    assert "--keep-weights full" in section.refusal


def test_a_follow_up_reads_the_tested_runs_that_pass_its_filters() -> None:
    specs = [
        RunSpec(method, task, seed=seed, protocol=protocol)
        for method in ("linear", "full")
        for task in ("dtd", "svhn")
        for seed in (0, 1)
        for protocol in ("final", "tuning")
    ]
    part = ExplainPart(name="x", of="a", methods="linear", tasks="dtd", seeds="0")
    requested = request_follow_up(part, specs)
    assert [spec for spec in specs if requested.reads(spec)] == [RunSpec("linear", "dtd")]
    # Records hold no paths, so images outside the catalogue are named by the study.
    images = RunSpec("linear", "folder:photos")
    assert [own_task(spec) for spec in (specs[0], images)] == [None, images.resolved.task]


def test_parts_share_runs(tmp_path: Path) -> None:
    text = """
    [study]
    tasks = "dtd"
    [[run]]
    name = "main"
    methods = ["ship", "linear"]
    seeds = "0-1"
    [[ablate]]
    name = "parts"
    seeds = "0-1"
    [[ablate]]
    name = "length"
    sweep.prompt_length = [5, 10]
    [[tune]]
    name = "tuned"
    methods = "linear"
    axes.lr = [0.1, 0.2, 0.3]
    seeds = "0-1"
    """
    grid = grid_of(written(tmp_path, text))
    sections = {section.name: section for section in grid.sections}
    assert {name: len(section.runs) for name, section in sections.items()} == {
        "main": 4, "parts": 12, "length": 2, "tuned: trials": 3, "tuned: chosen": 0,
    }  # fmt: skip
    assert {name: len(section.repeated) for name, section in sections.items() if section.repeated} == {
        "parts": 2, "length": 1,
    }  # fmt: skip
    assert sections["tuned: chosen"].waiting_runs == grid.waiting_runs == 2
    assert len(grid.runs) == len(grid.to_do) == 4 + 10 + 1 + 3
    for name in ("main", "parts"):
        seeds = [run.spec.seed for run in sections[name].runs]
        assert seeds == sorted(seeds)
    chosen = choose_parts(read_study(written(tmp_path, text)), "length, main")
    assert [part.name for part in chosen.parts] == ["main", "length"]
    with pytest.raises(InputError, match="did you mean 'length'"):
        choose_parts(chosen, "lenght")


@pytest.mark.parametrize("file", sorted(STUDIES.glob("*.toml")), ids=lambda file: file.stem)
def test_every_study_in_the_repository_can_be_planned(file: Path) -> None:
    study = read_study(file)
    grid = grid_of(file)
    assert study.reports
    assert len(grid.runs) > 400
    assert all(section.runs or section.waiting for section in grid.sections)


def test_the_demo_study_has_two_seeds_for_all_and_equal_budgets() -> None:
    planned = request(read_study(STUDIES / "demo.toml"), BASE, None, without_data=True)
    seeds: dict[str, set[int]] = {}
    for part in planned.parts:
        finals = (search.final_specs(0, part.final_seeds) for search in part.searches)
        for spec in chain.from_iterable(finals) if part.searches else part.specs:
            seeds.setdefault(spec.method, set()).add(spec.seed)
    points = [(search.method, len(search.points)) for part in planned.parts for search in part.searches]
    five = {"full", "vpt-shallow", "convpass", "adapter-houlsby", "adapter-pfeiffer"}
    tuned = {"linear", "vpt-deep", "ship", "lora", "adaptformer"}
    budgets = {(name, count) for name, count in points if not name.startswith("peft-")}
    assert budgets == {(name, 6) for name in five | tuned}
    assert {count for name, count in points if name.startswith("peft-")} == {3}
    assert seeds.keys() == set(list_methods())
    assert all(found >= {0, 1} for found in seeds.values())


def test_the_vpt_study_varies_what_the_paper_varies() -> None:
    planned = request(read_study(STUDIES / "vpt-paper.toml"), BASE, None, without_data=True)
    varied: dict[str, set[object]] = {}
    for spec in (spec for part in planned.parts for spec in part.specs):
        for key, value in spec.resolved.config.items():
            varied.setdefault(key, set()).add(value)
    counts = {
        "prompt_length": 6,
        "deep_layers": 6,
        "location": 6,
        "data_share": 6,
        "deep_shared": 2,
        "initiation": 4,
        "pooling": 4,
    }
    assert {key: len(varied[key]) for key in counts} == counts


def test_the_ship_study_sweeps_what_the_paper_sweeps() -> None:
    parts = {
        part.part.name: part
        for part in request(read_study(STUDIES / "ship-paper.toml"), BASE, None, without_data=True).parts
    }
    for name, key in (("prompt-length", "prompt_length"), ("threshold", "threshold")):
        values = {spec.resolved.config[key] for spec in parts[name].specs}
        assert len(values) >= 7
    assert {spec.resolved.config["prompt_length"] for spec in parts["prompt-length"].specs} >= {0, 200}
    assert {report.select for report in read_study(STUDIES / "ship-paper.toml").reports} == {"final", "oracle"}


def test_passes_count_epochs_evaluations_and_features() -> None:
    assert passes(3, 0, 100, 10, trains_on_features=False) == 2 * 300 + 10
    assert passes(100, 10, 1000, 7, trains_on_features=False) == 2 * 100_000 + 11 * 7
    assert passes(91, 10, 1000, 7, trains_on_features=False) == 2 * 91_000 + 10 * 7
    assert passes(100, 0, 1000, 7, trains_on_features=True) == 1007
    assert planned_passes(RunSpec("ship", "dtd", protocol="tuning")) == 2 * 100 * 800 + 200
    assert planned_passes(RunSpec("ship", "dtd", shots=2, overrides={"epochs": 1})) == 2 * 94 + 1880
    assert planned_passes(RunSpec("ship", "dtd", overrides={"epochs": 1, "data_share": 0.1})) == 2 * 100 + 1880
    assert planned_passes(RunSpec("linear", "dtd")) == 2880


@pytest.mark.parametrize(
    ("name", "size"), [("vit_tiny_patch16_224", None), ("vit_tiny_patch16_224", 64), ("vit_small_patch32_224", None)]
)
def test_flops_by_name_are_those_of_the_model(name: str, size: int | None) -> None:
    spec = RunSpec("ship", "dtd", backbone=name, overrides={"image_size": size})
    vit = load_backbone(name, checkpoint="random", image_size=size)
    image = torch.zeros(1, 3, *vit.patch_embed.img_size)
    assert plain_vit_flops(spec) == count_flops(lambda: vit(image))


def test_flops_are_unknown_for_other_names() -> None:
    for name in ("resnet50", "vit_base_patch16_rope_224", "vit_base_patch16"):
        assert plain_vit_flops(RunSpec("ship", "dtd", backbone=name)) is None
    assert plain_vit_flops(RunSpec("ship", "digits")) is not None


def row(**changes: Any) -> dict[str, Any]:
    values = {
        "run_id": "a", "method": "ship", "status": "done", "kind": "trained", "backbone": "vit",
        "suite": "vtab-1k", "overrides": "",
        "cfg.epochs": 10, "cfg.eval_every": 0, "cfg.image_size": 70, "n_train": 100, "n_test": 50,
        "train_seconds": 9.0, "eval_seconds": 1.0, "flops_per_image": 1e9, "eval_images_per_second": 4.0,
    }  # fmt: skip
    return values | changes


def test_rates_come_from_records_of_the_same_kind() -> None:
    failed = row(status="failed", train_seconds=0.001)
    evaluated = row(kind="evaluated", train_seconds=0.001)
    rates = measured_rates([row(), row(train_seconds=19.0), row(train_seconds=4.0), failed, evaluated])
    assert rates.passes == {("ship", "vit", 70): 205.0}
    assert rates.flops == 4e9


def test_the_size_of_a_backbone_is_that_of_its_name_or_the_only_one_recorded_without_a_setting() -> None:
    set_by_hand = row(**{"cfg.image_size": 32, "overrides": "image_size=32"})
    assert measured_rates([row(), set_by_hand]).native_sizes == {"vit": 70}
    for other in (row(**{"cfg.image_size": 32}), row(backbone="w", suite="demo"), row(backbone="w", status="failed")):
        known = {"vit": 70} if other["backbone"] == "w" else {}
        assert measured_rates([row(), other]).native_sizes == known
    named = RunSpec("ship", "dtd", backbone="vit_base_patch16_224.mae")
    assert planned_image_size(named) == 224
    assert planned_image_size(replace(named, overrides={"image_size": 384})) == 384
    assert planned_image_size(replace(named, backbone="vit")) is None
    assert estimate(named, Rates({("ship", "vit_base_patch16_224.mae", 224): 1.0}), lambda _: 1.0).measured == 1


def test_the_record_of_a_run_tells_the_time_of_the_next_one(cache: Path, tmp_path: Path) -> None:
    data, settings = vtab_tree(tmp_path / "data", tasks=("dtd",)), {"epochs": 1}
    spec = RunSpec("linear", "dtd", backbone="test_vit", checkpoint="random", data=data, overrides=settings)
    record = run(spec, results=tmp_path / "r")
    assert record.done, record.error
    rates = measured_rates(load_rows(tmp_path / "r"))
    planned = estimate(replace(spec, seed=1), rates, lambda _: 1.0)
    per_image = (record.train_seconds + record.eval_seconds) / (record.n_train + record.n_test)
    assert (planned.seconds, planned.measured) == (pytest.approx(planned_passes(spec) * per_image), 1)
    smaller = replace(spec, overrides={**settings, "image_size": 64})
    assert estimate(smaller, rates, lambda _: 1.0).measured == 0
    # Features of other images have yet to be computed, which the seconds of no record contain.
    assert estimate(replace(spec, task="svhn"), rates, lambda _: 1.0).flops == 27_032
    assert estimate(replace(spec, protocol="tuning"), rates, lambda _: 1.0).measured == 0
    assert estimate(spec, rates, lambda _: 1.0, images=5).flops == 5


def test_costs_follow_from_rates_and_without_them_from_flops() -> None:
    spec = RunSpec("ship", "dtd", backbone="vit", overrides={"epochs": 10})
    count = 2 * 10 * 1000 + 1880

    def forward(_: RunSpec) -> float:
        return 2e9

    measured = estimate(spec, Rates({("ship", "vit", 70): 100.0}, 1e9, {"vit": 70}), forward)
    assert (measured.seconds, measured.measured) == (count / 100, 1)
    by_flops = estimate(spec, Rates({("linear", "vit", 70): 100.0}, 1e9, {"vit": 70}), forward)
    assert (by_flops.seconds, by_flops.measured) == (count * 2, 0)
    unknown = estimate(spec, Rates({}), forward)
    assert (unknown.seconds, unknown.flops) == (0, count * 2e9)
    evaluated = estimate(spec, Rates({("ship", "vit", 70): 100.0}, 1e9, {"vit": 70}), forward, images=50)
    assert (evaluated.seconds, evaluated.measured) == (0.5, 1)
    mean = mean_of_points([[spec], [spec, spec]], lambda _: measured)
    assert (mean.seconds, mean.runs) == (pytest.approx(1.5 * count / 100), 1)
    assert total([measured, by_flops]).runs == 2


LOCK = {
    "format": "f",
    "study": "s",
    "versions": {"torch": "2.7.1", "python": "3.12.1"},
    "data": {"dtd (train, test)": "ab" * 32},
    "weights": {"vit": "cd" * 32},
    "precision": {"auto": "fp32"},
}


@pytest.mark.parametrize(
    ("common", "part", "epochs"),
    [
        ("epochs = 4", "set.epochs = 10", 10),
        ("set.epochs = 4", "epochs = 10", 10),
        ("epochs = 4", "epochs = 10", 10),
        ("set = { epochs = 4, lr = 0.5 }", "", 4),
    ],
)
def test_the_epochs_of_a_part_take_the_place_of_those_of_the_study(
    tmp_path: Path, common: str, part: str, epochs: int
) -> None:
    text = f"[study]\ntasks = 'dtd'\n{common}\n[[run]]\nmethods = 'linear'\n{part}\n"
    (requested,) = request(read_study(written(tmp_path, text)), BASE, None, without_data=True).parts
    (spec,) = requested.specs
    assert spec.resolved.recipe.epochs == epochs
    assert (spec.resolved.recipe.lr == 0.5) is ("lr" in common)


def test_a_key_of_a_part_takes_the_place_of_that_of_a_method_in_the_study(tmp_path: Path) -> None:
    common = "[study]\ntasks = 'dtd'\nset = { linear.lr = 0.5, linear.epochs = 10, linear.weight_decay = 0.1 }\n"
    text = f"{common}[[run]]\nmethods = 'linear'\nset.lr = 0.01\nepochs = 2\n"
    (requested,) = request(read_study(written(tmp_path, text)), BASE, None, without_data=True).parts
    (spec,) = requested.specs
    recipe = spec.resolved.recipe
    assert (recipe.lr, recipe.epochs, recipe.weight_decay) == (0.01, 2, 0.1)


def test_own_tasks_are_runs_of_their_own_where_no_data_can_be_opened(tmp_path: Path) -> None:
    tree = image_folder(tmp_path / "a" / "bugs", {"train": (2, 2, 2), "test": (1, 1, 1)})
    shutil.copytree(tree, tmp_path / "b" / "bugs")
    own = [f"folder:{tmp_path / name / 'bugs'}" for name in "ab"]
    text = f"[[run]]\nname = 'own'\nmethods = 'linear'\ntasks = {own}\n[[run]]\nmethods = 'linear'\ntasks = 'dtd'\n"
    assert len(grid_of(written(tmp_path, text)).runs) == 3


def test_a_follow_up_reads_the_images_that_its_source_names(tmp_path: Path) -> None:
    own = [f"folder:{tmp_path / name / 'bugs'}" for name in "ab"]
    specs = [RunSpec("linear", task) for task in parse_tasks(",".join(own))]
    assert [spec.resolved.task.name for spec in specs] == ["bugs", "bugs-2"]
    for tasks, read in ((own[1], [False, True]), ("bugs", [True, False]), ("", [True, True])):
        requested = request_follow_up(ExplainPart(name="e", of="r", tasks=tasks), specs)
        assert [requested.reads(spec) for spec in specs] == read
    drawn = [RunSpec("linear", replace(specs[0].task, name=name)) for name in ("few", "many")]
    for tasks, read in (("few", [True, False]), ("few,many", [True, True]), (own[0], [True, True])):
        requested = request_follow_up(ExplainPart(name="e", of="r", tasks=tasks), drawn)
        assert [requested.reads(spec) for spec in drawn] == read
    with pytest.raises(InputError, match="tasks: none of the runs that it reads has 'dtd'; choose from bugs, bugs-2"):
        request_follow_up(ExplainPart(name="e", of="r", tasks="dtd"), specs)


def test_augmented_images_have_features_of_their_own_in_every_epoch() -> None:
    plain, augmented = (RunSpec("linear", task, overrides={"epochs": 3}) for task in ("dtd", "cub-200-2011"))
    assert planned_passes(plain) == 1000 + 1880
    assert planned_passes(augmented) == 3 * 5994 + 5794


def test_winners_follow_seed_by_seed(tmp_path: Path) -> None:
    text = "[[tune]]\ntasks = 'dtd,svhn'\nmethods = 'linear,full'\naxes.lr = [0.1, 0.2]\nseeds = '1,0'\n"
    (part,) = request(read_study(written(tmp_path, text)), BASE, None, without_data=True).parts
    decisions = [PartDecision(part, Decision(search, (), Choice(0))) for search in part.searches]
    specs = winners(decisions)
    assert [spec.seed for spec in specs] == [1] * 4 + [0] * 4
    assert [(spec.task, spec.method) for spec in specs[4:]] == [
        ("dtd", "linear"), ("dtd", "full"), ("svhn", "linear"), ("svhn", "full"),
    ]  # fmt: skip


def test_data_and_weights_of_one_name_have_entries_of_their_own(tmp_path: Path) -> None:
    part = "[[run]]\nname = '{0}'\nmethods = 'linear'\ntasks = 'folder:{0}/bugs'\ncheckpoint = '{0}/last.pth'\n"
    third = "[[run]]\nmethods = 'linear'\ntasks = 'dtd'\ncheckpoint = 'c/one.pth'\n"
    study = read_study(written(tmp_path, part.format("a") + part.format("b") + third))

    def planned(task: str, checkpoint: str, digest: str) -> SimpleNamespace:
        spec = RunSpec("linear", task, checkpoint=checkpoint, precision="fp32")
        return SimpleNamespace(spec=spec, data_fingerprint=digest, backbone_sha256=digest)

    runs = [planned(f"folder:{name}/bugs", f"{name}/last.pth", name) for name in "ab"]
    lock = make_lock(study, SimpleNamespace(runs=[*runs, planned("dtd", "c/one.pth", "c")], follow_ups=()))
    backbone = runs[0].spec.resolved.backbone
    assert lock["data"] == {
        "bugs (train, test) from folder:a/bugs": "a",
        "bugs (train, test) from folder:b/bugs": "b",
        "dtd (train, test)": "c",
    }
    assert lock["weights"] == {
        f"{backbone} from a/last.pth": "a",
        f"{backbone} from b/last.pth": "b",
        f"{backbone} from one.pth": "c",
    }
    # Whichever parts are planned.
    alone = make_lock(choose_parts(study, "b"), SimpleNamespace(runs=runs[1:], follow_ups=()))
    assert alone["data"].items() <= lock["data"].items()
    assert alone["weights"].items() <= lock["weights"].items()


def test_a_lock_names_the_libraries_that_its_runs_and_evaluations_use(tmp_path: Path) -> None:
    study = read_study(written(tmp_path, "[[run]]\nmethods = 'linear'\ntasks = 'dtd'\n"))

    def named(method: str, corruptions: str) -> set[tuple[str, str]]:
        run = SimpleNamespace(spec=RunSpec(method, "dtd", precision="fp32"), data_fingerprint="a", backbone_sha256="b")
        requested = SimpleNamespace(on=None, corruptions=parse_corruptions(corruptions, "1") if corruptions else ())
        lock = make_lock(study, SimpleNamespace(runs=[run], follow_ups=[SimpleNamespace(requested=requested)]))
        return {(name, release) for name, release in lock["versions"].items() if name in ("peft", "torchvision")}

    assert named("linear", "") == set()
    assert named("peft-lora", "") == {("peft", version("peft"))}
    assert named("linear", "blur") == {("torchvision", version("torchvision"))}


def test_differences_between_locks_are_sentences() -> None:
    assert differences(LOCK, LOCK, "their.lock") == []
    other = {
        **LOCK,
        "study": "t",
        "versions": {"torch": "2.9.0", "python": "3.12.1"},
        "data": {"dtd (train, test)": "12" * 32, "svhn (train, test)": "00" * 32},
        "weights": {"vit": "34" * 32},
        "precision": {"auto": "bf16"},
    }
    assert differences(LOCK, other, "their.lock") == [
        "The study file has other content than the one of their.lock.",
        "torch is 2.7.1 here and 2.9.0 in their.lock.",
        "Images or labels of dtd (train, test) differ: fingerprint abababababab here, 121212121212 in their.lock.",
        "The weights of vit differ: SHA-256 cdcdcdcdcdcd here, 343434343434 in their.lock.",
        "Precision auto is fp32 here and bf16 in their.lock; "
        'set precision = "bf16" in the study file for the runs of that lock.',
    ]
    assert extended({**LOCK, "precision": {}}, other)["precision"] == {"auto": "bf16"}
    assert extended(LOCK, other)["data"] == {"dtd (train, test)": "ab" * 32, "svhn (train, test)": "00" * 32}
    with_plug_in = {**LOCK, "versions": {"torch": "2.9.0", "my-methods": "1.2"}}
    assert extended(LOCK, with_plug_in)["versions"] == {**LOCK["versions"], "my-methods": "1.2"}
