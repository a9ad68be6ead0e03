"""t-SNE of stored features: a panel per method and task, with the same images for all methods."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from shipbench.report import build_report
from shipbench.report.analysis import embedding
from shipbench.report.analysis.embedding import MOST_POINTS, chosen_points, embed, stored_features
from shipbench.report.analysis.study import build_study
from shipbench.report.drawing.chart import Points
from shipbench.report.drawing.metrics import text_width
from shipbench.report.drawing.palette import MUTED
from shipbench.report.drawing.paper import PHONE
from shipbench.report.drawing.shapes import Drawing
from shipbench.selection import Final
from tests.report.builders import grid, make_results


def features_of(run_id: str, images: int = 60) -> pd.DataFrame | None:
    """Return features of three classes far apart, shuffled; none for runs with seed 0 and for VPT."""
    if "-0-" in run_id or run_id.startswith("vpt"):
        return None
    labels = np.arange(images) % 3
    values = np.random.default_rng(1).normal(size=(images, 4)) + 50 * np.eye(4)[labels]
    frame = pd.DataFrame(values, columns=["f0", "f1", "f2", "f3"]).assign(index=range(images), label=labels)
    return frame.sample(frac=1, random_state=0).assign(run_id=run_id)


def test_each_method_has_a_panel_in_which_classes_lie_together() -> None:
    records = grid(("linear", "vpt-deep", "ship"), ("digits",), (0, 1))
    report = build_report(make_results(records), features=features_of)
    figure = next(each for each in report.figures() if each.name == "features-demo")
    panels = figure.draw().panels
    assert [panel.title for panel in panels] == ["digits: Linear probe", "digits: SHIP"]
    keys = [{mark.key for mark in panel.marks if isinstance(mark, Points)} for panel in panels]
    assert keys == [{"Linear probe"}, {"SHIP"}]
    for panel in panels:
        groups = [np.array([mark.xs, mark.ys]).T for mark in panel.marks if isinstance(mark, Points)]
        assert [len(group) for group in groups] == [20, 20, 20]
        centres = [group.mean(axis=0) for group in groups]
        for place, group in enumerate(groups):
            nearest = [np.linalg.norm(group - centre, axis=1) for centre in centres]
            assert (np.argmin(nearest, axis=0) == place).all()


def places(drawing: Drawing) -> list[tuple[str, str]]:
    return [(marker.colour, marker.tip) for marker in drawing.markers()]


def test_several_runs_fit_a_phone_with_the_same_images_and_one_embedding_each(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def flat(features: NDArray[np.float64]) -> NDArray[np.float64]:
        calls.append(len(features))
        return features[:, :2]

    monkeypatch.setattr(embedding, "embed", flat)
    records = grid(("linear", "ship"), ("digits", "textures", "earth-climate"), (0, 1))
    report = build_report(make_results(records), features=features_of)
    figure = next(each for each in report.figures() if each.name == "features-demo")
    narrow = figure.narrow_drawing
    assert narrow is not None
    assert narrow.width == PHONE.narrow
    assert places(narrow) == places(figure.drawing)
    assert calls == [60] * 6
    titles = [text for text in narrow.texts() if text.colour != MUTED]
    assert [text.text for text in titles[:2]] == ["Linear probe", "digits"]
    assert all(text.x + text_width(text.text, text.size) <= narrow.width for text in titles)
    assert min(text.size for text in titles) > 7
    alone = build_report(make_results(records[:2]), features=features_of)
    assert next(each for each in alone.figures() if each.name == "features-demo").narrow is None


def test_each_method_shows_its_lowest_seed_with_features() -> None:
    study = build_study(make_results(grid(("ship", "linear"), ("digits", "textures"), (2, 0, 1))), None, Final())
    stored = list(stored_features(study, "demo", features_of))
    assert [(each.arm.method, each.task, each.seed) for each in stored] == [
        (method, task, 1) for method in ("linear", "ship") for task in ("digits", "textures")
    ]


def test_without_stored_features_there_is_no_figure() -> None:
    records = grid(("linear", "ship"), ("digits",), (0,))
    for report in (build_report(make_results(records)), build_report(make_results(records), features=features_of)):
        assert "features-demo" not in {each.name for each in report.figures()}


def test_points_are_limited_to_the_largest_classes_by_a_fixed_draw() -> None:
    labels = np.repeat(np.arange(12), [100] * 10 + [3, 2])
    places = chosen_points(labels)
    assert len(places) == MOST_POINTS
    assert labels[places].max() == 9
    assert (places == chosen_points(labels)).all()


def test_the_embedding_depends_on_the_features_alone() -> None:
    features = np.random.default_rng(0).normal(size=(40, 5))
    assert (embed(features) == embed(features)).all()
    assert embed(features[:6]).shape == (6, 2)
