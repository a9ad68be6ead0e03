"""Intersections of rays with spheres, cubes and cylinders, which are convex: a ray is inside for one interval.

Vectors are triples of float32 arrays, one array per coordinate. Sums are written out, because the order in which a
library routine adds depends on the machine.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from shipbench.data.demo.rendering.clevr_scene import Thing

Array: TypeAlias = NDArray[np.float32]
Vectors: TypeAlias = tuple[Array, Array, Array]
Interval: TypeAlias = tuple[Array, Array]

_TINY = np.float32(1e-6)
_BIG = np.float32(1e9)


def dot(a: Vectors, b: Vectors) -> Array:
    """Return the dot product, elementwise over the arrays."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def unit(a: Vectors) -> Vectors:
    """Return the vectors scaled to length 1."""
    length: Array = np.sqrt(dot(a, a))
    return a[0] / length, a[1] / length, a[2] / length


def along(origin: Vectors, direction: Vectors, t: Array) -> Vectors:
    """Return the points ``origin + t * direction``."""
    return origin[0] + t * direction[0], origin[1] + t * direction[1], origin[2] + t * direction[2]


def interval(thing: Thing, origin: Vectors, direction: Vectors) -> Interval:
    """Return where rays enter and leave ``thing``, in units of ``direction``; enter > leave for rays that miss."""
    o, d = _into_frame(thing, origin), _turned(thing, direction)
    if thing.shape == "sphere":
        return _quadratic(dot(d, d), dot(o, d), dot(o, o) - np.float32(thing.radius**2))
    half = np.float32(thing.half_height)
    lid = _slab(o[2], d[2], half)
    if thing.shape == "cylinder":
        wall = _quadratic(
            d[0] * d[0] + d[1] * d[1],
            o[0] * d[0] + o[1] * d[1],
            o[0] * o[0] + o[1] * o[1] - np.float32(thing.radius**2),
        )
        return _both(wall, lid)
    return _both(_both(_slab(o[0], d[0], half), _slab(o[1], d[1], half)), lid)


def normal(thing: Thing, point: Vectors) -> Vectors:
    """Return the outward unit normals at points on the surface of ``thing``."""
    local = _into_frame(thing, point)
    if thing.shape == "sphere":
        return unit(local)
    if thing.shape == "cylinder":
        return _out_of_frame(thing, _cylinder_normal(thing, local))
    return _out_of_frame(thing, _cube_normal(local))


def _cylinder_normal(thing: Thing, local: Vectors) -> Vectors:
    radius = np.sqrt(local[0] * local[0] + local[1] * local[1])
    on_lid = local[2] / np.float32(thing.half_height) > radius / np.float32(thing.radius)
    wall = np.where(on_lid, np.float32(0.0), 1 / np.maximum(radius, _TINY))
    return local[0] * wall, local[1] * wall, on_lid.astype(np.float32)


def _cube_normal(local: Vectors) -> Vectors:
    size = tuple(np.abs(axis) for axis in local)
    largest = np.maximum(np.maximum(size[0], size[1]), size[2])
    on_x = size[0] == largest
    on_y = (size[1] == largest) & ~on_x
    on_z = ~on_x & ~on_y
    faces = zip((on_x, on_y, on_z), local, strict=True)
    x, y, z = (np.where(face, np.sign(axis), np.float32(0.0)) for face, axis in faces)
    return x, y, z


def _into_frame(thing: Thing, points: Vectors) -> Vectors:
    x, y, z = (v - np.float32(c) for v, c in zip(points, thing.centre, strict=True))
    return _turned(thing, (x, y, z))


def _turned(thing: Thing, vectors: Vectors) -> Vectors:
    if thing.shape != "cube":
        return vectors
    x, y, z = vectors
    cos, sin = np.float32(thing.turn[0]), np.float32(thing.turn[1])
    return cos * x + sin * y, cos * y - sin * x, z


def _out_of_frame(thing: Thing, vectors: Vectors) -> Vectors:
    if thing.shape != "cube":
        return vectors
    x, y, z = vectors
    cos, sin = np.float32(thing.turn[0]), np.float32(thing.turn[1])
    return cos * x - sin * y, sin * x + cos * y, z


def _quadratic(a: Array, half_b: Array, c: Array) -> Interval:
    discriminant = half_b * half_b - a * c
    root = np.sqrt(np.maximum(discriminant, 0))
    a = np.maximum(a, _TINY)
    miss = discriminant < 0
    return np.where(miss, _BIG, (-half_b - root) / a), np.where(miss, -_BIG, (root - half_b) / a)


def _slab(o: Array, d: Array, half: np.float32) -> Interval:
    d = np.where(np.abs(d) < _TINY, _TINY, d)
    first, second = (-half - o) / d, (half - o) / d
    return np.minimum(first, second), np.maximum(first, second)


def _both(a: Interval, b: Interval) -> Interval:
    return np.maximum(a[0], b[0]), np.minimum(a[1], b[1])
