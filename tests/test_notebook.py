"""What a notebook shows, and the example notebook; .ci/run executes it on the demo suite."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from shipbench import print_progress
from shipbench.events import EpochDone, Event, Finished, Lost, Note, Started
from shipbench.report import build_report, show
from tests.results.test_store import make_record

ROOT = Path(__file__).parents[1]
AFFINITY = json.dumps([[1.0, 0.5], [0.5, 1.0]])


def code_cells() -> list[str]:
    notebook = json.loads((ROOT / "examples/notebook.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    sources = ["".join(cell["source"]) for cell in cells]
    # It needs the weights of a run.
    return [source for source in sources if "shipbench explain" not in source]


def test_the_example_on_stored_records(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Execute every cell but with records instead of the runs that .ci/run executes."""
    nbformat: Any = pytest.importorskip("nbformat", reason="nbclient is not installed")
    nbclient: Any = pytest.importorskip("nbclient", reason="nbclient is not installed")
    stored = (
        "import shipbench\n"
        "from tests.cli.builders import make_record, results_folder\n"
        f"values = dict(levels='[0]', affinity={AFFINITY!r}, affinity_std={AFFINITY!r})\n"
        "records = {method: make_record(method, method=method, **values) for method in ('linear', 'ship')}\n"
        "results_folder('results', records.values())\n"
        "shipbench.run = lambda spec, *, results, listener: records[spec.method]\n"
    )
    cells = [nbformat.v4.new_code_cell(text) for text in (stored, *code_cells())]
    notebook = nbformat.v4.new_notebook(cells=cells)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    nbclient.NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}, timeout=60).execute()
    shown = [set(output.data) for cell in cells for output in cell.outputs if output.output_type == "execute_result"]
    formats = [next((kind for kind in ("image/svg+xml", "text/html") if kind in data), "") for data in shown]
    assert formats == ["text/html", "text/html", "text/html", "image/svg+xml", "text/html"]
    printed = [output.text for cell in cells for output in cell.outputs if output.output_type == "stream"]
    assert printed == []


def test_a_record_shows_its_facts() -> None:
    html = make_record(run_id="a1", final_test_acc=0.5, error="<b>")._repr_html_()
    facts = {row[0].text: row[1].text for row in ET.fromstring(html)}
    assert facts["run_id"] == "a1"
    assert facts["error"] == "<b>"
    assert facts["final_test_acc"] == "50.0 %"
    assert "val_acc" not in facts
    # A record of a failed run has no costs.
    assert facts.keys().isdisjoint({"train_seconds", "trainable_params"})
    per_class = make_record(
        headline_metric="mean-per-class", final_test_mean_class_acc=0.25, trainable_params=1234, train_seconds=2.0
    )
    facts = {row[0].text: row[1].text for row in ET.fromstring(per_class._repr_html_())}
    assert facts["final_test_mean_class_acc"] == "25.0 %"
    assert (facts["trainable_params"], facts["train_seconds"]) == ("1,234", "2.0")


def test_the_page_names_what_its_run_makes() -> None:
    page = (ROOT / "docs/how-to/notebooks.md").read_text(encoding="utf-8")
    (suite,) = re.findall(r'RunSpec\("ship", "([\w-]+)"\)', page)
    record = make_record(run_id="a1", task=suite, suite=suite, levels="[0]", affinity=AFFINITY, affinity_std=AFFINITY)
    report = build_report(pd.DataFrame([record.to_row()]))
    for kind, made in (("tables", report.tables()), ("figures", report.figures())):
        named = set(re.findall(rf'{kind}\["([\w-]+)"\]', page))
        assert named
        assert named <= {each.name for each in made}


def test_a_table_and_a_figure_show_themselves() -> None:
    ship = make_record(run_id="a1", final_test_acc=0.5, levels="[0]", affinity=AFFINITY, affinity_std=AFFINITY)
    linear = make_record(run_id="a2", method="linear", final_test_acc=0.25)
    report = build_report(pd.DataFrame([ship.to_row(), linear.to_row()]))
    table = next(table for table in report.tables() if table.name.startswith("main"))
    html = table._repr_html_()
    assert "<caption><b>" in html
    assert '<td style="font-weight: bold">50.0' in html
    assert "<th>Params (M): with head</th>" in html
    figure = next(figure for figure in report.figures() if figure.name.startswith("affinity"))
    assert ET.fromstring(show(figure)._repr_svg_()).tag.endswith("svg")


def test_progress_prints_each_line_once(capsys: pytest.CaptureFixture[str]) -> None:
    record = make_record(run_id="a1", final_test_acc=0.5, train_seconds=2.0, eval_seconds=1.0)
    events: list[Event] = [Started("a1"), Note("a1", "12 levels"), Note(None, "a machine")]
    events += [EpochDone("a1", epoch, 20, 1.5, 0.1, 2.0, 100) for epoch in range(2)]
    for event in (*events, Lost("a1"), Finished("a1", record)):
        print_progress(event)
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.splitlines() == [
        "run a1",
        "  12 levels",
        "  a machine",
        "  epoch 2/20, loss 1.500, 50 images/s",
        "  was taken over by another process",
        "  test accuracy 50.0 %, 3 s",
    ]
