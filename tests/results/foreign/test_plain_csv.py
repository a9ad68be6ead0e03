"""Results written by hand: what a CSV file may hold, and what refuses it."""

from __future__ import annotations

from pathlib import Path

import pytest

from shipbench.errors import InputError
from shipbench.results.loading import load_results
from shipbench.tasks import TASKS
from tests.results.foreign.trees import imported, write

HEADER = "method,task,accuracy,seed,epoch_rule,params\n"


def test_units_rules_and_counts(tmp_path: Path) -> None:
    text = HEADER + "A,dtd,88.1,0,last,0.29M\nA,svhn,0.9%,,val,1.2K\nA,Pets,50,,,\n# a comment\nA,kitti,60,1,max,12\n"
    text += "A,dmlab,40,,Validation,0.1b\n"
    imported("csv", write(tmp_path / "a.csv", text), tmp_path / "results")
    rows = load_results(tmp_path / "results").set_index("task")
    assert rows["final_test_acc"].dropna().to_dict() == {"dtd": pytest.approx(0.881)}
    assert rows["best_test_acc"].dropna().to_dict() == {"kitti": 0.6}
    assert rows["stated_acc"].dropna().to_dict() == {
        "svhn": pytest.approx(0.009),
        "oxford_iiit_pet": 0.5,
        "dmlab": 0.4,
    }
    assert rows["epoch_rule"].to_dict() == {
        "dtd": "final",
        "svhn": "validation",
        "oxford_iiit_pet": "",
        "kitti": "oracle",
        "dmlab": "validation",
    }
    counts = {"dtd": 290_000, "svhn": 1200, "kitti": 12, "dmlab": 100_000_000}
    assert rows["params_as_written"].dropna().to_dict() == counts
    assert rows["num_classes"].to_dict() == {task: TASKS[task].num_classes for task in rows.index}
    assert rows.loc["svhn", "seed"] == -1
    assert set(rows["kind"]) == {"imported"}


def test_semicolons_and_decimal_commas(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "\ufeffmethod;task;accuracy\nA;dtd;88,1\n")
    (outcome,) = imported("csv", path, tmp_path / "results")
    assert outcome.record is not None
    assert outcome.record.stated_acc == pytest.approx(0.881)


def test_fractions_are_never_guessed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", HEADER + "A,dtd,0.881,,,\nA,svhn,1,,,\n")
    with pytest.raises(InputError, match="--unit fraction"):
        imported("csv", path, tmp_path / "results")
    outcomes = imported("csv", path, tmp_path / "results", unit="fraction")
    assert [o.record.stated_acc for o in outcomes if o.record] == [0.881, 1.0]
    outcomes = imported("csv", path, tmp_path / "percentages", unit="percent")
    assert [o.record.stated_acc for o in outcomes if o.record] == pytest.approx([0.00881, 0.01])
    write(path, HEADER + "A,dtd,0.881,,,\nA,svhn,9.5%,,,\n")
    outcomes = imported("csv", path, tmp_path / "other", unit="fraction")
    assert [o.record.stated_acc for o in outcomes if o.record] == [0.881, 0.095]


def test_two_rules_of_one_run_and_tasks_of_other_suites(tmp_path: Path) -> None:
    task = next(name for name, task in TASKS.items() if task.suite != "vtab-1k")
    header = HEADER.replace("\n", ",params_with_head\n")
    text = f"{header}A,{task},50,0,last,2K,yes\nA,{task},60,0,best,1K,no\n"
    outcomes = imported("csv", write(tmp_path / "a.csv", text), tmp_path / "results")
    records = [outcome.record for outcome in outcomes if outcome.record]
    assert [(r.epoch_rule, r.params_with_head) for r in records] == [("final", "yes"), ("oracle", "no")]
    assert {(r.task, r.suite) for r in records} == {(task, TASKS[task].suite)}
    assert records[0].run_id != records[1].run_id
    assert (records[0].trainable_params, records[1].trainable_params_without_head) == (2000, 1000)


def test_tasks_of_fgvc_have_the_names_of_papers(tmp_path: Path) -> None:
    names = ("CUB-200-2011", "NABirds", "Oxford Flowers", "Stanford Dogs", "Stanford Cars", "cub")
    text = HEADER + "".join(f"{i},{name},80,,last,\n" for i, name in enumerate(names))
    outcomes = imported("csv", write(tmp_path / "a.csv", text), tmp_path / "results")
    tasks = ["cub-200-2011", "nabirds", "oxford-flowers", "stanford-dogs", "stanford-cars", "cub-200-2011"]
    assert [(o.record.task, o.record.suite) for o in outcomes if o.record] == [(task, "fgvc") for task in tasks]


def test_columns_may_have_spaces_in_their_names(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "Method,Task,Accuracy,Epoch rule\nA,dtd,88.1,last\n")
    (outcome,) = imported("csv", path, tmp_path / "results")
    assert outcome.record is not None
    assert (outcome.record.epoch_rule, outcome.record.final_test_acc) == ("final", pytest.approx(0.881))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("A,dtd,0.5,,,", "line 3: 0.5 among percentages"),
        ("A,dtd,101,,,", "not between 0 and 100"),
        ("A,dtd,-1%,,,", "not between 0 and 100"),
        ("A,dtd,high,,,", "is not a number"),
        ("A,smallnorb_azimut,50,,,", "nearest names are smallnorb_azi"),
        ("A,oxford_flowers,50,,,", "unknown task 'oxford_flowers'; the nearest names are oxford_flowers102"),
        ("A,dtd,50,one,,", "seed 'one'"),
        ("A,dtd,50,10000000000000000000,,", "seed '10000000000000000000' .* too large"),
        ("A,dtd,50,,,99999999999B", "params '99999999999B'"),
        ("A,dtd,50,,lats,", "did you mean 'last'"),
        ("A,dtd,50,,,many", "params 'many'"),
        ("A,dtd,50,,,1.2.3K", "params '1.2.3K'"),
        (",dtd,50,,,", "no method"),
        ("B,svhn,70,,,", "are those of line 2"),
        ("A,dtd,50,,,,9", "it has 7 values"),
    ],
)
def test_a_wrong_line_refuses_the_file(line: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", f"{HEADER}B,svhn,80,,,\n{line}\n")
    with pytest.raises(InputError, match=message):
        imported("csv", path, tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_unknown_columns_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imported("csv", write(tmp_path / "a.csv", "method,task,accuracy,sede\nA,dtd,50,1\n"), tmp_path / "results")
    assert "the columns sede are not read (did you mean 'seed'?)" in capsys.readouterr().err
    imported("csv", write(tmp_path / "b.csv", "method,task,accuracy,seed,std\nA,dtd,50,1,2\n"), tmp_path / "results")
    assert capsys.readouterr().err.startswith(f"warning: {tmp_path / 'b.csv'}: the columns std are not read\n")


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column 'accuracy'"):
        imported("csv", write(tmp_path / "a.csv", "method,task\nA,dtd\n"), tmp_path / "results")


def test_a_table_of_something_else_in_a_folder_is_listed(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", HEADER + "A,dtd,50,,,\n")
    other = write(tmp_path / "images/train.csv", "image,label\na.png,x\n")
    outcomes = imported("csv", tmp_path, tmp_path / "results")
    assert [(o.file.name, o.state) for o in outcomes] == [("a.csv", "imported"), ("train.csv", "skipped")]
    with pytest.raises(InputError, match="cannot be imported: no table of results"):
        imported("csv", other, tmp_path / "results")
