"""What commands on finished runs can refuse cheaply is one message, before images are hashed or weights loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from shipbench.data.listings import DrawnSource
from tests.cli.conftest import Trained
from tests.conftest import Shipbench


def test_everything_wrong_is_named_at_once(
    shipbench: Shipbench, trained: Trained, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DrawnSource, "identify", lambda *_: pytest.fail("images were hashed"))
    run_id, source = trained.runs["ship"], ("--on", f"folder:{trained.photographs}")
    wrong = ("--checkpoint", tmp_path / "nofile.npz", "--device", "cuda:7")
    missing, device = f"checkpoint {tmp_path / 'nofile.npz'} does not exist", "device 'cuda:7' is not available"
    unknown, nowhere = "there is no run 'nothing'", ("--on", f"folder:{tmp_path / 'nowhere'}")
    for line, problems in (
        (("evaluate", run_id, "--corrupt", "blur", *nowhere, *wrong), (missing, device, "nowhere")),
        (("evaluate", run_id, *source, *wrong), (missing, device)),
        (("evaluate", run_id, "nothing", "--corrupt", "fog", *source, *wrong), ("'fog'", device, missing, unknown)),
        (("evaluate", run_id, "--on", "demo", "--severity", "2"), ("names 6 tasks", "--severity needs --corrupt")),
        (("explain", run_id, *nowhere, *wrong), (missing, device, "nowhere")),
        (("explain", run_id, tmp_path / "no.png", *wrong), (missing, device, "no.png does not exist")),
        (("explain", "nothing", "--features", "--output", tmp_path), (unknown, "leave out --output")),
    ):
        outcome = shipbench(*line, "--results", trained.results)
        assert outcome.code == 2
        assert outcome.err.splitlines()[0] == f"error: {len(problems)} problems:", outcome.err
        assert len(outcome.err.splitlines()) == 1 + len(problems)
        assert all(words in outcome.err for words in problems), outcome.err
