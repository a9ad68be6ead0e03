"""The table of a GPU's figures on the page about performance."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shipbench.bench.table import BEGIN, END, failures, fill, main, render

TIMING = {"median": 0.012, "low": 0.011, "high": 0.0135}
STEP = {"training": TIMING, "training_rate": 5333.3, "training_bytes": 2_500_000_000, "evaluation_rate": 9000.0}


def part(folder: Path, name: str, rows: list[dict[str, Any]], **changes: Any) -> None:
    options = {"model": {"backbone": "vit_base_patch16_224", "batch_size": 64, "drop_path": 0.1}}
    content = {"device": "NVIDIA H200", "torch": "2.15", "commit": "abc", "options": options, "finished": True}
    (folder / f"gpu-{name}.json").write_text(json.dumps(content | {"rows": rows} | changes))


def test_a_page_is_filled_between_its_markers_and_can_be_filled_again(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{BEGIN}\nold\n{END}\nafter\n")
    ship = {"method": "ship", "precision": "bf16"}
    part(
        tmp_path,
        "steps",
        [ship | STEP | {"captured": True}, {"method": "full", "precision": "bf16", "error": "OutOfMemoryError"}],
    )
    for _ in range(2):
        fill(page, tmp_path)
    text = page.read_text()
    assert text.startswith("before\n\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    assert text.count("| ship | bf16 | yes | 12.00 (11.00 to 13.50) | 5333 | 2.50 | 9000 |") == 1
    assert "full, bf16: OutOfMemoryError" in text
    assert "NVIDIA H200, torch 2.15, commit abc." in text


def test_differences_failures_and_cut_off_parts_are_said(tmp_path: Path) -> None:
    same = {"method": "ship", "precision": "bf16", "steps": 20, "equal": True, "different": []}
    part(tmp_path, "repeats", [same, same | {"method": "full", "equal": False}], finished=False)
    tests = [{"test": "tests/cuda/test_a.py::test_b", "outcome": outcome} for outcome in ("passed", "failed")]
    part(tmp_path, "equality", tests)
    text = render(tmp_path)
    assert "20 steps, taken twice, are equal bit for bit in 1 of 2 cases; the others: full, bf16 (different)." in text
    assert "cut off" in text
    assert "1 passed, 1 failed, 0 skipped" in text
    assert "- `tests/cuda/test_a.py::test_b`" in text


def test_every_part_has_a_table_in_the_units_of_its_columns(tmp_path: Path) -> None:
    ship = {"method": "ship", "precision": "bf16"}
    gaps = {"kernels": 812.0, "launches": 5.0, "copies_from_host": 1.5, "span": 12.345, "idle": 0.125}
    part(tmp_path, "profile", [ship | gaps | {"captured": True}])
    runs = {"decoding_rate": 900.0, "training_rate": 800.0, "evaluation_rate": 700.0, "benchmark_seconds": 930.0}
    part(tmp_path, "end-to-end", [ship | runs | {"training_fraction": 0.25, "evaluation_fraction": 0.75}])
    part(tmp_path, "stacks", [ship | STEP | {"runs": 4}])
    text = render(tmp_path)
    assert "| ship, bf16 | yes | 812 | 5 | 1.5 | 12.35 | 12 % |" in text
    assert "| ship, bf16 | 900 | 800 | 700 | 25 % | 15.5 |" in text
    assert "| ship, bf16 | no | 4 | 12.00 (11.00 to 13.50) | 5333 | 2.50 |" in text


def test_failures_are_told_of_parts_that_were_cut_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{BEGIN}\n{END}\n")
    ship = {"method": "ship", "precision": "bf16"}
    part(tmp_path, "repeats", [ship | {"equal": True}], finished=False)
    part(tmp_path, "equality", [{"test": "test_a", "outcome": "passed"}, {"test": "test_b", "outcome": "skipped"}])
    main(["--page", str(page), "--files", str(tmp_path)])
    part(tmp_path, "repeats", [ship | {"equal": False}], finished=False)
    part(tmp_path, "equality", [{"test": "test_a", "outcome": "failed", "reason": "E assert 1 == 2"}])
    part(tmp_path, "steps", [ship | {"error": "OutOfMemoryError"}], error="RuntimeError: no kernel")
    assert failures(tmp_path) == [
        "equality: test_a: E assert 1 == 2",
        "repeats: ship, bf16: different",
        "steps: RuntimeError: no kernel",
        "steps: ship, bf16: OutOfMemoryError",
    ]
    with pytest.raises(SystemExit) as stop:
        main(["--page", str(page), "--files", str(tmp_path)])
    assert stop.value.code == 1
    assert "failed: repeats: ship, bf16: different" in capsys.readouterr().err
    assert "This part was cut off by its time limit." in page.read_text()


def test_the_table_is_written_without_torch() -> None:
    code = "import sys, shipbench.bench.table; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_without_files_the_page_says_that_nothing_was_measured(tmp_path: Path) -> None:
    assert "No GPU has run this code yet" in render(tmp_path)


def test_a_page_without_markers_and_a_broken_file_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("no markers\n")
    for text, message in (("no markers\n", "has no lines"), (f"{BEGIN}\n{END}\n", "is not JSON")):
        page.write_text(text)
        (tmp_path / "gpu-steps.json").write_text("{")
        with pytest.raises(SystemExit) as stop:
            main(["--page", str(page), "--files", str(tmp_path)])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
        assert page.read_text() == text
