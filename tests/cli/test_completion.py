"""Shell completion, asked as bash asks it: right answers, without heavy imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from shipbench.cli import completion
from shipbench.tasks import TASKS
from tests.cli.test_listing import HEAVY
from tests.plug_ins import install


def complete(*lines: str, **environment: str) -> list[list[str]]:
    """Return the answers to TAB at the end of each line, from one process."""
    code = (
        "import json, os, sys\n"
        "from shipbench.cli import main\n"
        "for line in json.loads(sys.argv[1]):\n"
        "    sys.argv = ['shipbench']\n"
        "    os.environ |= {'COMP_WORDS': line, 'COMP_CWORD': str(line.count(' '))}\n"
        "    try: main()\n"
        "    except SystemExit as stop: assert not stop.code, line\n"
        "    print('next line')\n"
        f"print('heavy:', *[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    asked = os.environ | {"_SHIPBENCH_COMPLETE": "complete_bash"} | environment
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(lines)], env=asked, capture_output=True, text=True, check=True
    )
    assert done.stderr.split() == ["heavy:"]
    return [answer.split() for answer in done.stdout.split("next line\n")[:-1]]


def test_values_are_completed() -> None:
    answers = {
        "shipbench ab": ["ablate"],
        "shipbench run --method li": ["linear"],
        "shipbench run --method ship,vpt-": ["ship,vpt-deep", "ship,vpt-shallow"],
        "shipbench run --method ship,sh": [],
        "shipbench run --tasks demo": ["demo", "demo-tiny"],
        "shipbench tune --tasks natural,cifar": ["natural,cifar100"],
        "shipbench data inspect clevr-": ["clevr-count", "clevr-dist"],
        "shipbench run --backbone demo": ["demo-vit-small-patch14"],
        "shipbench run --precision b": ["bf16"],
        "shipbench ablate --switch no-hierarchy,no-m": ["no-hierarchy,no-matching-loss"],
        "shipbench ablate --method linear --switch no-m": [],
        "shipbench ablate --method vpt-d": ["vpt-deep"],
        "shipbench list runs --columns task,final_test_a": ["task,final_test_acc"],
        "shipbench run --jobs 0 --config missing.toml --method fu": ["full"],
    }
    assert dict(zip(answers, complete(*answers), strict=True)) == answers


def test_run_ids_are_completed_from_the_results_folder(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    for run_id in ("91d9", "91aa", "0123"):
        (tmp_path / "runs" / f"{run_id}.parquet").touch()
    assert complete(f"shipbench export --results {tmp_path} 91") == [["91aa", "91d9"]]
    lines = ("shipbench export 0", "shipbench list runs 91a")
    assert complete(*lines, SHIPBENCH_RESULTS=str(tmp_path)) == [["0123"], ["91aa"]]


def test_every_task_is_offered() -> None:
    assert set(TASKS) <= set(completion.tasks(""))


def test_engines_are_those_that_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, EntryPoint("cloud", "module:Class", "shipbench.engines"))
    assert completion.engines("") == ["cloud", "dask", "local", "slurm"]


def test_completion_is_installed_for_a_shell(tmp_path: Path) -> None:
    environment = os.environ | {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'shipbench'; from shipbench.cli import main; main()",
         "--install-completion", "bash"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "completion installed" in done.stdout
    assert "shipbench" in (tmp_path / ".bashrc").read_text()
