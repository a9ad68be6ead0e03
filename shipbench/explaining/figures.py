"""Figures of an explanation: heat maps of attention, maps of features, and the attention that prompts receive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from shipbench.explaining.reading import BlockView
from shipbench.runtime.files import atomic_path
from shipbench.runtime.plotting import default_style

_DPI = 150
_CELL = 1.0
# Gaps between cells, in cells.
_GAP, _ROW_GAP = 0.05, 0.2
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9")
_INK, _MUTED = "#1f2431", "#666d7c"
_FAINT = 0.35
"""Share of an image that shines through a heat map."""


@dataclass(frozen=True)
class ExplainedImage:
    """One image (H, W, 3), uint8, with a pass of the frozen backbone and one of the run over it.

    ``heading`` says what the run makes of it, ``right`` whether that is its class, None if its class is not known;
    ``predicted`` is the number of the predicted class, ``confidence`` its probability. ``grid`` is (rows, columns) of
    the patches.
    """

    name: str
    heading: str
    right: bool | None
    predicted: int
    confidence: float
    pixels: NDArray[np.uint8]
    grid: tuple[int, int]
    frozen: Sequence[BlockView]
    adapted: Sequence[BlockView]


@default_style()
def block_figure(image: ExplainedImage, title: str, levels: Sequence[int]) -> Figure:
    """Return attention and features of every block, frozen above those of the run (``title``).

    A last row outlines the patches that guide prompts, where any do. ``levels`` are the first blocks of the levels.
    """
    guides = any(view.guiding is not None for view in image.adapted)
    labels = [f"{kind}\n{what}" for what in ("attention of CLS", "features") for kind in ("frozen", title)]
    labels += ["patches that\nguide attributes"] if guides else []
    figure, axes = _grid(len(labels), len(image.adapted) + 2)
    _photograph(axes[0][0], image)
    for row, label in zip(axes, labels, strict=True):
        row[1].text(1.0, 0.5, label, fontsize=7, color=_INK, ha="right", va="center", transform=row[1].transAxes)
    for block, (frozen, adapted) in enumerate(zip(image.frozen, image.adapted, strict=True)):
        column = [row[block + 2] for row in axes]
        column[0].set_title(_block_title(block, levels), fontsize=7, color=_INK)
        _attention(column[0], image, frozen.attention)
        _attention(column[1], image, adapted.attention)
        if adapted.prompts:
            share = float(sum(part[0] for part in adapted.prompts.values()))
            column[1].set_xlabel(f"prompts {100 * share:.0f} %", fontsize=6, color=_MUTED, labelpad=2)
        _features(column[2:4], image, (frozen, adapted))
        if guides:
            _guiding(column[4], image, adapted)
    return figure


@default_style()
def montage(images: Sequence[ExplainedImage], title: str) -> Figure:
    """Return the last block's attention and features of several images, those classified correctly on the left."""
    halves = [[image for image in images if image.right is right] for right in (True, False)]
    rows = max(len(half) for half in halves)
    columns = ("", "frozen\nattention", f"{title}\nattention", "frozen\nfeatures", f"{title}\nfeatures")
    figure, axes = _grid(rows, 2 * len(columns), gap_after=len(columns))
    for half, (members, word) in enumerate(zip(halves, ("classified correctly", "classified wrongly"), strict=True)):
        start = half * len(columns)
        for place, label in enumerate(columns):
            axes[0][start + place].set_title(label if place else word, fontsize=7, color=_INK)
        for row, image in zip(axes, members, strict=False):
            _montage_row(row[start : start + len(columns)], image)
        for row in axes[len(members) :]:
            for cell in row[start : start + len(columns)]:
                cell.set_axis_off()
    return figure


@default_style()
def prompt_figure(images: Sequence[ExplainedImage], title: str, levels: Sequence[int]) -> Figure:
    """Return the attention that CLS gives to each stream of prompts, block by block, mean over images and heads."""
    shares = prompt_shares(images)
    names = list(dict.fromkeys(name for block in shares for name in block))
    figure = Figure(figsize=(6.4, 2.9), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    base = np.zeros(len(shares))
    for name, colour in zip(names, _COLOURS, strict=False):
        heights = 100 * np.array([block.get(name, 0.0) for block in shares])
        axes.bar(range(1, len(shares) + 1), heights, bottom=base, color=colour, label=name, width=0.72)
        base += heights
    for number, level in enumerate(levels):
        blocks = base[level : levels[number + 1] if number + 1 < len(levels) else len(shares)]
        axes.axvline(level + 0.5, color=_MUTED, linewidth=0.6, linestyle=":")
        axes.annotate(f"L{number + 1}", (level + 0.56, np.max(base) * 1.07), fontsize=6.5, color=_MUTED, va="center")
        axes.hlines(blocks.mean(), level + 0.6, level + len(blocks) + 0.4, color=_INK, linewidth=0.9)
    axes.set_ylim(0, np.max(base) * 1.14)
    axes.set_xticks(range(1, len(shares) + 1))
    axes.set_xlabel("block" + (" (L: first block of a level; black: mean of a level)" if levels else ""), fontsize=8)
    axes.set_ylabel("attention of CLS (%)", fontsize=8)
    axes.set_title(f"{title}: attention that prompts receive", fontsize=9, loc="left", color=_INK)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False, ncols=len(names), loc="upper left", bbox_to_anchor=(0, -0.22))
    return figure


def prompt_shares(images: Sequence[ExplainedImage]) -> list[dict[str, float]]:
    """Return the share of the attention of CLS that each stream of prompts receives, by block, mean over images."""
    blocks = zip(*(image.adapted for image in images), strict=True)
    return [
        {name: float(np.mean([float(view.prompts[name].mean()) for view in views])) for name in views[0].prompts}
        for views in blocks
    ]


@default_style()
def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _grid(rows: int, columns: int, gap_after: int = 0) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure with square cells without axes; a wider gap follows the column ``gap_after``."""
    widths = [1.0] * columns
    if gap_after:
        widths.insert(gap_after, 0.2)
    # Margins in inches; constrained layout takes ten seconds for a hundred cells.
    left, right, top, bottom = 0.05, 0.05, 0.38, 0.34
    width = _CELL * sum(widths) * (1 + _GAP) + left + right
    height = _CELL * rows * (1 + _ROW_GAP) + top + bottom
    figure = Figure(figsize=(width, height), dpi=_DPI)
    FigureCanvasAgg(figure)
    layout = figure.add_gridspec(
        rows,
        len(widths),
        width_ratios=widths,
        left=left / width,
        right=1 - right / width,
        top=1 - top / height,
        bottom=bottom / height,
        wspace=_GAP,
        hspace=_ROW_GAP,
    )
    places = [place for place in range(len(widths)) if not gap_after or place != gap_after]
    cells = [[figure.add_subplot(layout[row, place]) for place in places] for row in range(rows)]
    for cell in (cell for row in cells for cell in row):
        cell.set_xticks([])
        cell.set_yticks([])
        cell.spines[:].set_visible(False)
    return figure, cells


def _block_title(block: int, levels: Sequence[int]) -> str:
    level = f"\nlevel {levels.index(block) + 1}" if block in levels else "\n "
    return f"block {block + 1}{level if levels else ''}"


def _montage_row(cells: Sequence[Axes], image: ExplainedImage) -> None:
    _photograph(cells[0], image)
    _attention(cells[1], image, image.frozen[-1].attention)
    _attention(cells[2], image, image.adapted[-1].attention)
    _features(cells[3:], image, (image.frozen[-1], image.adapted[-1]))


def _photograph(axes: Axes, image: ExplainedImage) -> None:
    axes.imshow(image.pixels)
    # Names of classes may hold dollar signs, between which matplotlib expects formulae.
    axes.set_xlabel(image.heading, fontsize=6, color=_INK, labelpad=2, parse_math=False)


def _attention(axes: Axes, image: ExplainedImage, attention: Tensor) -> None:
    """Draw a heat map over the dimmed image, scaled to the largest value."""
    height, width = image.pixels.shape[:2]
    grey = image.pixels.mean(axis=2)
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255)
    heat = attention[0].view(image.grid).numpy()
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes.imshow(heat, cmap="inferno", vmin=0, alpha=1 - _FAINT, extent=extent, interpolation="bilinear")


def _features(cells: Sequence[Axes], image: ExplainedImage, views: tuple[BlockView, BlockView]) -> None:
    for axes, colours in zip(cells, feature_colours([view.patches[0] for view in views]), strict=True):
        axes.imshow(colours.reshape(*image.grid, 3), interpolation="nearest")


def feature_colours(patches: Sequence[Tensor]) -> list[NDArray[np.float64]]:
    """Return red, green and blue (P, 3) in [0, 1] for each of several ``patches`` (P, D).

    The colours are the first three principal components over all of them, so that equal colours mean equal features.
    """
    together = torch.cat(list(patches)).double()
    centred = together - together.mean(dim=0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    components = (centred @ directions[:3].T).numpy()
    # The sign of a component is arbitrary; its largest value counts as positive.
    components = components * np.sign(components[np.abs(components).argmax(axis=0), range(components.shape[1])])
    if components.shape[1] < 3:
        components = np.pad(components, ((0, 0), (0, 3 - components.shape[1])))
    low, high = np.quantile(components, [0.02, 0.98], axis=0)
    scaled = np.clip((components - low) / np.maximum(high - low, 1e-12), 0, 1)
    return list(np.split(scaled, np.cumsum([len(part) for part in patches])[:-1]))


def _guiding(axes: Axes, image: ExplainedImage, view: BlockView) -> None:
    """Outline the patches that guide the attribute prompts of the next block; leave the cell empty if none do."""
    if view.guiding is None:
        axes.set_axis_off()
        return
    rows, columns = image.grid
    height, width = image.pixels.shape[:2]
    chosen = np.zeros(rows * columns, dtype=bool)
    chosen[[place for place in view.guiding[0].tolist() if place >= 0]] = True
    mask = np.kron(chosen.reshape(rows, columns), np.ones((height // rows, width // columns))).astype(bool)
    shown = image.pixels.astype(float)
    mask = np.pad(mask, ((0, height - mask.shape[0]), (0, width - mask.shape[1])))
    axes.imshow(np.where(mask[..., None], shown, 255 - 0.25 * (255 - shown)).astype(np.uint8))


def explained_in_numbers(images: Sequence[ExplainedImage]) -> list[Mapping[str, object]]:
    """Return what the figures show of each image, except maps, as values of JSON."""
    return [
        {
            "name": image.name,
            "heading": image.heading,
            "right": image.right,
            "predicted": image.predicted,
            "confidence": image.confidence,
            "prompt_attention": prompt_shares([image]),
            "guiding_patches": {
                block + 1: view.guiding[0].tolist()
                for block, view in enumerate(image.adapted)
                if view.guiding is not None
            },
        }
        for image in images
    ]
