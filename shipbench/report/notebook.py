"""Figures as a notebook shows them."""

from __future__ import annotations

from dataclasses import dataclass

from shipbench.report.document import Figure
from shipbench.report.render.images import images


@dataclass(frozen=True)
class Shown:
    """A drawn figure, which notebooks display."""

    svg: str

    def _repr_svg_(self) -> str:
        return self.svg


def show(figure: Figure) -> Shown:
    """Draw a figure of a report for a notebook."""
    return Shown(images(figure, ["svg"])["svg"].decode())
