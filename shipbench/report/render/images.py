"""Figures as files in every image format."""

from __future__ import annotations

from collections.abc import Sequence

from shipbench.report.document import Figure
from shipbench.report.drawing.lower import lower
from shipbench.report.drawing.paper import PLAIN, PaperStyle
from shipbench.report.render.pgf import pgf_picture
from shipbench.report.render.svg import svg_file

IMAGE_FORMATS = ("png", "pdf", "svg", "pgf")


def images(figure: Figure, suffixes: Sequence[str], paper: PaperStyle = PLAIN) -> dict[str, bytes]:
    """Return ``figure`` in each of the formats ``suffixes`` (png, pdf, svg, pgf)."""
    drawing = figure.drawing if paper is PLAIN else lower(figure.draw(), paper)
    files = {"svg": svg_file(drawing, serif=paper.serif)} if "svg" in suffixes else {}
    if "pgf" in suffixes:
        files["pgf"] = pgf_picture(drawing)
    through_matplotlib = [suffix for suffix in ("png", "pdf") if suffix in suffixes]
    if through_matplotlib:
        # Only these formats need matplotlib, which takes longer to import than all figures take to draw.
        from shipbench.report.render.plot import plots

        files |= plots(drawing, through_matplotlib, serif=paper.serif)
    return files
