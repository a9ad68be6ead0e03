"""``shipbench ablate``: its variants, and the runs that it shares with ``shipbench run``."""

from __future__ import annotations

from pathlib import Path

import pytest

from shipbench import load_results
from shipbench.methods import get_method
from shipbench.planning.ablation import make_variants, parse_switches, switch_sets
from tests.conftest import Shipbench

SHIP = get_method("ship")
SWITCHES = tuple(SHIP.switches)


def test_sets_of_switches() -> None:
    assert switch_sets(SWITCHES, "leave-one-out") == [(), *((name,) for name in SWITCHES)]
    steps = switch_sets(SWITCHES, "add-one-in")
    assert steps[0] == SWITCHES
    assert steps[-1] == ()
    assert [len(step) for step in steps] == [5, 4, 3, 2, 1, 0]
    assert len(set(switch_sets(SWITCHES, "all"))) == 32
    assert parse_switches(None, SHIP) == SWITCHES


def test_leave_one_out_shares_the_full_run(shipbench: Shipbench, line: tuple[object, ...], tmp_path: Path) -> None:
    assert shipbench("run", "--method", "ship", *line).code == 0
    outcome = shipbench("ablate", *line)
    assert outcome.code == 0, outcome.err
    assert "6 runs: 5 to do, 1 done" in outcome.err
    frame = load_results(tmp_path / "r")
    assert set(frame["switches"]) == {"", *SWITCHES}
    assert frame["final_test_acc"].between(0, 1).all()
    assert all(f"[{name}]" in "".join(outcome.out.split()) for name in SWITCHES)


def test_a_sweep_varies_one_setting(shipbench: Shipbench, line: tuple[object, ...], tmp_path: Path) -> None:
    outcome = shipbench("ablate", *line, "--sweep", "prompt_length=2,4")
    assert outcome.code == 0, outcome.err
    assert sorted(load_results(tmp_path / "r")["cfg.prompt_length"]) == [2, 4]
    assert "ship, prompt_length=2" in outcome.out
    assert "ship, prompt_length=4" in outcome.out


def test_a_config_file_holds_sweeps(shipbench: Shipbench, line: tuple[object, ...], tmp_path: Path) -> None:
    (tmp_path / "ablate.toml").write_text("[sweep]\nprompt_length = [2, 4]\nthreshold = [0.5, 1]\n")
    outcome = shipbench("ablate", *line, "--config", tmp_path / "ablate.toml", "--dry-run")
    assert outcome.out.count("to do: will run") == 4, outcome.err


def test_sweeps_are_separate_unless_they_are_multiplied() -> None:
    sweeps = ["prompt_length=2,4", "lr=0.1,0.2,0.3"]
    separate = make_variants(SHIP, {"epochs": 3}, None, "leave-one-out", sweeps)
    assert [tuple(variant) for variant in separate] == [("epochs", "prompt_length")] * 2 + [("epochs", "lr")] * 3
    grid = make_variants(SHIP, {"epochs": 3}, None, "leave-one-out", sweeps, multiply=True)
    pairs = [(variant["prompt_length"], variant["lr"]) for variant in grid]
    assert pairs == [(length, rate) for length in ("2", "4") for rate in ("0.1", "0.2", "0.3")]
    assert all(variant["epochs"] == 3 for variant in grid)


def test_a_product_combines_switches_with_sweeps() -> None:
    variants = make_variants(SHIP, {}, "no-hierarchy", "leave-one-out", ["threshold=0.5"], multiply=True)
    assert variants == [{"threshold": "0.5"}, {"threshold": 1.0}]
    separate = make_variants(SHIP, {}, "no-hierarchy", "leave-one-out", ["threshold=0.5"])
    assert separate == [{"threshold": "0.5"}, {}, {"threshold": 1.0}]


def test_any_method_is_ablated_by_its_settings(shipbench: Shipbench, line: tuple[object, ...], tmp_path: Path) -> None:
    sweeps = ("--sweep", "dim=2,4", "--sweep", "lr=0.01,0.1", "--product")
    outcome = shipbench("ablate", "--method", "adaptformer", *line, *sweeps)
    assert outcome.code == 0, outcome.err
    frame = load_results(tmp_path / "r")
    assert set(frame["method"]) == {"adaptformer"}
    assert sorted(zip(frame["cfg.dim"], frame["cfg.lr"], strict=True)) == [(2, 0.01), (2, 0.1), (4, 0.01), (4, 0.1)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--method", "full"), "full has no ablation switches; vary its settings"),
        (("--method", "lora", "--switch", "no-hierarchy"), "unknown switch 'no-hierarchy' for lora"),
        (("--method", "shipp"), "did you mean 'ship'"),
        (("--sweep", "lr=1,2", "--sweep", "ship.lr=3", "--product"), "lr is swept twice"),
        (("--switch", "no-hierarchi"), "did you mean 'no-hierarchy'"),
        (("--mode", "one"), "unknown mode 'one'"),
        (("--sweep", "lr=1,2", "--mode", "one"), "unknown mode 'one'"),
        (("--sweep", "capture=auto,off"), "--sweep: capture changes no result"),
        (("--sweep", "lr=1,2", "--mode", "all"), "--mode all is for switches, and a sweep varies none"),
        (("--product",), "--product combines sweeps; give at least one"),
        (("--sweep", "prompt_length"), "is not KEY=V1"),
        (("--sweep", "epochs=1,2"), "epochs is given twice"),
        (("--sweep", "image_size=32,64"), "image_size is given twice"),
        (("--sweep", "ship.image_size=32,64"), "image_size is given twice"),
        (("--set", "ship.prompt_length=7", "--sweep", "prompt_length=5,10"), "prompt_length is given twice"),
        (("--sweep", "linear.lr=1,2"), "--sweep linear.lr: method 'linear' is not among"),
        (("--sweep", "promt_length=1,2"), "did you mean 'prompt_length'"),
    ],
)
def test_wrong_variants_are_refused(
    shipbench: Shipbench, line: tuple[object, ...], tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    outcome = shipbench("ablate", *line, *options)
    assert outcome.code == 2
    assert words in outcome.err
    assert not (tmp_path / "r" / "runs").exists()


def test_a_switch_takes_precedence_over_a_setting_of_the_method(shipbench: Shipbench, line: tuple[object, ...]) -> None:
    outcome = shipbench("ablate", *line, "--switch", "no-hierarchy", "--set", "ship.threshold=0.5", "--dry-run")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("threshold=0.5") == outcome.out.count("threshold=1.0") == 1


def test_every_switch_of_a_method_is_planned(shipbench: Shipbench, line: tuple[object, ...]) -> None:
    outcome = shipbench("ablate", "--method", "ssf", *line, "--dry-run")
    assert outcome.code == 0, outcome.err
    switches = get_method("ssf").switches
    assert all(f"[{switch}]" in outcome.out for switch in switches)
    assert f"{len(switches) + 1} runs" in outcome.err
