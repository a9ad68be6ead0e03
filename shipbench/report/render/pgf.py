"""Drawings as PGF for LaTeX: the document's own font, vector shapes, one package."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from shipbench.report.drawing.palette import rgb
from shipbench.report.drawing.shapes import Drawing, Grid, Marker, Path, Shape, Text, outline
from shipbench.report.render.latex import escape

_ANCHORS = {"start": "base west", "middle": "base", "end": "base east"}


def pgf_picture(drawing: Drawing) -> bytes:
    """Return the drawing as a ``tikzpicture``, to be read with ``\\input``."""
    frame = f"\\path[use as bounding box] (0,0) rectangle ({drawing.width:.1f},{drawing.height:.1f});"
    shapes = chain.from_iterable(_shape(shape) for shape in drawing.shapes)
    lines = (
        "% needs \\usepackage{amssymb,tikz}",
        # In points with y downwards, as the shapes are.
        "\\begin{tikzpicture}[x=1bp,y=-1bp]",
        frame,
        *shapes,
        "\\end{tikzpicture}",
    )
    return ("\n".join(lines) + "\n").encode()


def _colour(colour: str) -> str:
    red, green, blue = rgb(colour)
    return f"{{rgb,255:red,{red};green,{green};blue,{blue}}}"


def _shape(shape: Shape) -> Iterator[str]:
    match shape:
        case Path():
            yield _path(shape)
        case Marker():
            yield _marker(shape)
        case Text():
            yield _text(shape)
        case Grid():
            yield from _grid(shape)


def _path(path: Path) -> str:
    options = [f"opacity={path.opacity:g}"] if path.opacity < 1 else []
    if path.colour:
        options += [f"draw={_colour(path.colour)}", f"line width={path.width:.2f}bp"]
    if path.fill:
        options.append(f"fill={_colour(path.fill)}")
    if path.dashes:
        pairs = zip(path.dashes[::2], path.dashes[1::2], strict=True)
        options.append(f"dash pattern={' '.join(f'on {on:g}bp off {off:g}bp' for on, off in pairs)}")
    return f"\\path[{','.join(options)}] {_outline(path.points, closed=path.closed)};"


def _outline(points: Sequence[tuple[float, float]], *, closed: bool) -> str:
    return " -- ".join(f"({x:.1f},{y:.1f})" for x, y in points) + (" -- cycle" if closed else "")


def _marker(marker: Marker) -> str:
    options = f"fill={_colour(marker.fill or marker.colour)}"
    if marker.fill:
        options += f",draw={_colour(marker.colour)},line width=1.4bp"
    corners = outline(marker)
    place = (
        _outline(corners, closed=True)
        if corners
        else f"({marker.x:.1f},{marker.y:.1f}) circle[radius={marker.size / 2:.1f}bp]"
    )
    return f"\\path[{options}] {place};"


def _text(text: Text) -> str:
    options = [f"anchor={_ANCHORS[text.anchor]}", "inner sep=0pt", f"text={_colour(text.colour)}"]
    if text.turned:
        options.append("rotate=90")
    weight = "\\bfseries " if text.bold else ""
    font = f"\\fontsize{{{text.size:.1f}}}{{{1.2 * text.size:.1f}}}\\selectfont {weight}"
    return f"\\node[{','.join(options)}] at ({text.x:.1f},{text.y:.1f}) {{{font}{escape(text.text)}}};"


def _grid(grid: Grid) -> Iterator[str]:
    width, height = grid.width / len(grid.colours[0]), grid.height / len(grid.colours)
    for row, colours in enumerate(grid.colours):
        for column, colour in enumerate(colours):
            x, y = grid.x + column * width, grid.y + row * height
            yield f"\\path[fill={_colour(colour)}] ({x:.2f},{y:.2f}) rectangle ({x + width:.2f},{y + height:.2f});"
