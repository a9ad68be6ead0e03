"""What commands on finished runs can refuse cheaply is one message, before images are hashed or weights loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from shipbench.data.listings import DrawnSource
from shipbench.results.store import Store
from tests.cli.test_evaluate import on
from tests.conftest import Shipbench
from tests.results.test_store import make_record
from tests.tasks.pictures import NAMES, image_folder


def test_everything_wrong_is_named_at_once(
    shipbench: Shipbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DrawnSource, "identify", lambda *_: pytest.fail("images were hashed"))
    image_folder(tmp_path / "bugs", {"": (2, 2, 2)})
    store = Store(tmp_path / "r")
    store.write(make_record(run_id="a1", task="bugs", source="folder", num_classes=len(NAMES)))
    store.path("weights", "a1").parent.mkdir()
    save_file({"head.bias": np.zeros(3)}, store.path("weights", "a1"))
    wrong = ("--checkpoint", tmp_path / "nofile.npz", "--device", "cuda:7")
    missing, device = f"checkpoint {tmp_path / 'nofile.npz'} does not exist", "device 'cuda:7' is not available"
    unknown, source, nowhere = "there is no run 'nothing'", on(tmp_path / "bugs"), on(tmp_path / "nowhere")
    for line, problems in (
        (("evaluate", "a1", "--corrupt", "blur", *nowhere, *wrong), (missing, device, "nowhere")),
        (("evaluate", "a1", *source, *wrong), (missing, device)),
        (("evaluate", "a1", "nothing", "--corrupt", "fog", *source, *wrong), ("'fog'", device, missing, unknown)),
        (("evaluate", "a1", "--on", "demo", "--severity", "2"), ("names 6 tasks", "--severity needs --corrupt")),
        (("explain", "a1", *nowhere, *wrong), (missing, device, "nowhere")),
        (("explain", "a1", tmp_path / "no.png", *wrong), (missing, device, "no.png does not exist")),
        (("explain", "nothing", "--features", "--output", tmp_path), (unknown, "leave out --output")),
    ):
        outcome = shipbench(*line, "--results", store.root)
        assert outcome.code == 2
        assert outcome.err.splitlines()[0] == f"error: {len(problems)} problems:", outcome.err
        assert len(outcome.err.splitlines()) == 1 + len(problems)
        assert all(words in outcome.err for words in problems), outcome.err
