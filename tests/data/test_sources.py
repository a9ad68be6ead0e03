"""Sources: found by entry point, and sufficient for loading, inspection and verification."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shipbench.data import fingerprint, load, sources
from shipbench.data.demo.source import DemoSuite
from shipbench.data.fgvc.source import FgvcSuite
from shipbench.data.inspection.contact_sheet import write_contact_sheet
from shipbench.data.inspection.summary import summarise
from shipbench.data.inspection.verify import verify
from shipbench.data.sources import source_kind
from shipbench.data.types import Identity, NativeSplit, TaskReport
from shipbench.data.vtab.source import VtabFolder
from shipbench.errors import InputError
from shipbench.tasks import TASKS, Task, get_task
from shipbench.tasks.catalogue import DEMO_TINY, SplitName
from tests.plug_ins import install

FLAGS = replace(get_task("dtd"), name="flags", num_classes=3, n_train=5, n_test=3, source="flags")

pytestmark = pytest.mark.usefixtures("private_cache")


@dataclass(frozen=True)
class FlagSource:
    """Plain images of 8 x 4 pixels, one colour per label."""

    counts: Mapping[SplitName, int]
    warning: str = ""

    def identity(self, jobs: int | None = None) -> Identity:
        return Identity("f" * 64, "array")

    def open_split(self, name: SplitName) -> NativeSplit:
        labels = np.arange(self.counts[name], dtype=np.int64) % 3
        return NativeSplit(labels, lambda index: Image.new("RGB", (8, 4), (80 * int(labels[index]), 0, 0)))


class Flags:
    """A source kind as another package would write it."""

    def open(self, task: Task, root: Path | None, splits: tuple[SplitName, ...]) -> FlagSource:
        return FlagSource({name: task.counts[name] for name in splits})

    def verify(self, task: Task, root: Path | None, jobs: int | None = None) -> TaskReport:
        return TaskReport(task.name, root, problems=("the flags are half-mast",))


def install_flags(monkeypatch: pytest.MonkeyPatch, *values: str) -> None:
    install(monkeypatch, *(EntryPoint("flags", value, sources.GROUP) for value in values))


def test_every_task_of_the_catalogue_has_an_installed_source() -> None:
    for task in TASKS.values():
        kind = {"vtab-1k": VtabFolder, "fgvc": FgvcSuite}.get(task.suite, DemoSuite)
        assert isinstance(source_kind(task), kind)


def test_a_new_source_kind_is_loaded_inspected_and_verified(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install_flags(monkeypatch, "tests.data.test_sources:Flags")
    data = load(FLAGS, image_size=6, root=None)
    assert (data.fingerprint, data.image_format) == (fingerprint(FLAGS, None), "array")
    assert data["train"].images[:, 0, 0, 0].tolist() == [0, 80, 160, 0, 80]
    assert data["test"].labels.tolist() == [0, 1, 2]
    assert summarise(FLAGS, None).counts["val200"].tolist() == [1, 0, 0]
    write_contact_sheet(FLAGS, None, tmp_path / "flags.png")
    assert (tmp_path / "flags.png").is_file()
    (report,) = verify(tmp_path, tasks=[FLAGS])
    assert report.problems == ("the flags are half-mast",)


def test_a_source_that_is_not_installed_is_refused() -> None:
    with pytest.raises(InputError, match=r"task flags needs the source 'flags', .*; installed sources are .*vtab-1k"):
        source_kind(FLAGS)


def test_a_source_of_two_packages_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install_flags(monkeypatch, "tests.data.test_sources:Flags", "elsewhere:Flags")
    with pytest.raises(InputError, match=r"several packages have the source 'flags' \(elsewhere:.*; rename"):
        source_kind(FLAGS)


def test_a_source_that_cannot_be_imported_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install_flags(monkeypatch, "no_such_package:Flags")
    with pytest.raises(InputError, match=r"source 'flags' \(no_such_package:Flags\) cannot be imported"):
        source_kind(FLAGS)


class NeedsLibrary:
    """A source that imports its library when it is made."""

    def __init__(self) -> None:
        raise ModuleNotFoundError("No module named 'vexillology'")


def test_a_source_that_cannot_be_made_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install_flags(monkeypatch, "tests.data.test_sources:NeedsLibrary")
    with pytest.raises(InputError, match=r"source 'flags' \(.*\) cannot be made: .*No module named 'vexillology'"):
        source_kind(FLAGS)


class Refuses:
    """A source that says itself why it cannot be used."""

    def __init__(self) -> None:
        raise InputError("flags need a pole")


def test_a_source_refuses_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    install_flags(monkeypatch, "tests.data.test_sources:Refuses")
    with pytest.raises(InputError, match=r"^flags need a pole$"):
        source_kind(FLAGS)


def test_the_demo_suite_is_verified_too() -> None:
    (report,) = verify(None, tasks=DEMO_TINY.tasks)
    assert report.problems == report.warnings == report.notes == ()
    assert dict(report.counts) == {"train800": 320, "val200": 80, "test": 200}
    assert (report.image_format, report.smallest, report.largest) == ("array", (64, 64), (64, 64))
    assert report.classes_seen == 4
    assert report.fingerprint == fingerprint(DEMO_TINY.tasks[0], None)


@pytest.mark.parametrize(("task", "drawn"), [("demo-tiny", False), ("demo-tiny", True), ("dtd", False)])
def test_renderers_are_imported_only_to_draw(dtd: Path, task: str, drawn: bool) -> None:
    if task == "demo-tiny" and not drawn:
        fingerprint(get_task(task), None)
    code = f"""
import sys
from pathlib import Path
from shipbench.data import fingerprint
from shipbench.tasks import get_task
fingerprint(get_task({task!r}), Path({str(dtd)!r}))
print(any("rendering" in name for name in sys.modules), "torch" in sys.modules)
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == [str(drawn), "False"]
