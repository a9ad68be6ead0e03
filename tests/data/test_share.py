"""A share of the training images: balanced, nested, the same for every seed, and without effect on other splits."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shipbench import RunSpec, load_results, run
from shipbench.data.share import draw_share
from shipbench.errors import InputError
from tests.data.builders import vtab_tree

LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 3], [40, 20, 10, 1])).astype(np.int64)


def drawn(share: float) -> list[int]:
    return draw_share(LABELS, share).tolist()


def test_every_class_keeps_its_share_and_at_least_one_image() -> None:
    assert np.bincount(LABELS[drawn(0.3)]).tolist() == [12, 6, 3, 1]
    assert np.bincount(LABELS[drawn(0.01)]).tolist() == [1, 1, 1, 1]
    assert drawn(1.0) == list(range(71))


def test_larger_shares_contain_smaller_ones_in_the_order_of_the_split() -> None:
    shares = [drawn(share) for share in (0.1, 0.3, 0.5, 0.8, 1.0)]
    for small, large in itertools.pairwise(shares):
        assert set(small) < set(large)
        assert large == sorted(large)
    assert drawn(0.5) != list(range(len(drawn(0.5))))


def test_a_share_is_pinned() -> None:
    """A run id holds the share and not the images drawn for it."""
    assert drawn(0.1) == [0, 11, 19, 20, 31, 41, 48, 62]


@pytest.mark.parametrize("method", ["linear", "ship"])
def test_runs_train_on_the_share_and_score_everything(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Cached features of all images are not taken for those of the share."""
    data = vtab_tree(tmp_path / "data", tasks=("patch_camelyon",), n_train=20)

    def trained(share: float, results: str = "r", **fields: Any) -> Any:
        settings = {"image_size": 64, "epochs": 1, "data_share": share}
        place: dict[str, Any] = {"backbone": "test_vit", "checkpoint": "random", "data": data}
        return run(RunSpec(method, "patch_camelyon", overrides=settings, **place, **fields), results=tmp_path / results)

    records = [trained(1.0), trained(0.5), trained(0.5, seed=1), trained(0.5, protocol="tuning")]
    assert [record.n_train for record in records] == [20, 10, 10, 8]
    assert [record.n_test for record in records] == [6, 6, 6, 4]
    assert len({record.run_id for record in records}) == 4
    assert sorted(load_results(tmp_path / "r")["cfg.data_share"]) == [0.5, 0.5, 0.5, 1.0]
    monkeypatch.setenv("SHIPBENCH_CACHE", str(tmp_path / "empty"))
    anew = trained(0.5, results="anew")
    assert (anew.train_loss, anew.affinity) == (records[1].train_loss, records[1].affinity)


@pytest.mark.parametrize(("share", "words"), [(0, "above 0"), (1.5, "1 or less")])
def test_shares_out_of_bounds_are_refused(share: float, words: str) -> None:
    with pytest.raises(InputError, match=words):
        RunSpec("linear", "dtd", overrides={"data_share": share}).resolved  # noqa: B018
