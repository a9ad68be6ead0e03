"""Tuners of the peft library under another release of it, and on another processor."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from shipbench.events import Emitter
from shipbench.results.store import Store
from shipbench.runs.export import _rebuild
from shipbench.runs.session import Session
from shipbench.training.snapshot import weights_to_keep
from tests.methods.test_peft import IMAGES, after_two_steps, built, tiny_vit


def test_a_checkpoint_names_the_release_of_the_library(tmp_path: Path) -> None:
    for name, release in (("peft-lora", version("peft")), ("linear", None)):
        method, compute = SimpleNamespace(name=name), SimpleNamespace(device=torch.device("cpu"))
        prepared: Any = SimpleNamespace(run_id="a1", resolved=SimpleNamespace(method=method), compute=compute)
        claim: Any = SimpleNamespace(check=None)
        start = Session(Store(tmp_path), claim, None, Emitter("a1")).start(prepared)
        assert start.checkpoint is not None
        assert start.checkpoint.identity.get("peft") == release


def test_a_model_of_another_release_of_the_library_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    for stored in ("0.1", version("peft")):
        facts = json.dumps({"peft_seed": 1, "peft_version": stored})
        _rebuild({"method": "peft-lora", "num_classes": "5", "settings": "{}", "facts": facts}, tiny_vit())
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"this model was trained with peft 0.1 and is built by peft {version('peft')}")


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("name", ["peft-frod", "peft-psoft"])
def test_a_tuner_is_restored_where_singular_vectors_have_other_signs(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = after_two_steps(name)
    weights = {key: value.clone() for key, value in weights_to_keep(result.model).items()}
    svd, eigh = torch.linalg.svd, torch.linalg.eigh

    def signs(count: int) -> torch.Tensor:
        return 1.0 - 2.0 * (torch.arange(count) % 2)

    def other_svd(matrix: torch.Tensor, **options: Any) -> tuple[torch.Tensor, ...]:
        u, s, vh = svd(matrix, **options)
        return u * signs(u.shape[-1]), s, vh * signs(vh.shape[-2])[:, None]

    def other_eigh(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values, vectors = eigh(matrix)
        return values, vectors * signs(vectors.shape[-1])

    monkeypatch.setattr(torch.linalg, "svd", other_svd)
    monkeypatch.setattr(torch.linalg, "eigh", other_eigh)
    again = built(name, known=result.facts).model
    again.load_state_dict(weights, strict=False)
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(IMAGES), result.model(IMAGES), rtol=1e-4, atol=1e-4)
