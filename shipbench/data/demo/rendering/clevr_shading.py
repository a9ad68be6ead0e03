"""Colours of lit points in linear RGB: a matt floor, matt rubber, metal that mirrors floor, walls and lights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shipbench.data.demo.rendering.clevr_geometry import Array, Vectors, dot, normal, unit
from shipbench.data.demo.rendering.clevr_scene import COLOURS, Scene, Thing, Vector

_AMBIENT = np.float32(0.25)
_STRENGTHS = (1.05, 0.22, 0.16)  # key, fill and back light, at the distance of the floor's middle
_FLOOR_ALBEDO = (np.float32(0.42), np.float32(0.418), np.float32(0.412))


@dataclass(frozen=True)
class Shaded:
    """Points to colour: positions, directions of the rays, and 1 where the key light reaches them, else 0."""

    point: Vectors
    direction: Vectors
    lit: Array


@dataclass(frozen=True)
class _Beam:
    """One light at some points: unit directions towards it, and its strength there, shadow included."""

    direction: Vectors
    strength: Array


def floor_colour(points: Shaded, open_sky: Array, scene: Scene) -> Vectors:
    """Return the floor's colour at ``points``; ``open_sky`` is the share of open sky above each of them, 0 to 1."""
    light = _AMBIENT * open_sky
    for beam in _beams(points, scene):
        light += beam.strength * beam.direction[2]
    return _FLOOR_ALBEDO[0] * light, _FLOOR_ALBEDO[1] * light, _FLOOR_ALBEDO[2] * light


def thing_colour(points: Shaded, thing: Thing, scene: Scene) -> Vectors:
    """Return the colour of ``points`` on ``thing``."""
    facing = normal(thing, points.point)
    beams = _beams(points, scene)
    light = _AMBIENT * (np.float32(0.75) + np.float32(0.25) * facing[2])
    for beam in beams:
        light = light + beam.strength * np.maximum(dot(facing, beam.direction), 0)
    ray = unit(points.direction)
    if thing.material == "rubber":
        body, gloss = light * np.float32(0.8), _gloss(ray, facing, beams, 4) * np.float32(0.10)
    else:
        body = light * np.float32(0.35) + _mirrored(ray, facing) * np.float32(0.85)
        gloss = _gloss(ray, facing, beams, 6) * np.float32(0.9)
    red, green, blue = (np.float32((value / 255) ** 2) * body + gloss for value in COLOURS[thing.colour])
    return red, green, blue


def _beams(points: Shaded, scene: Scene) -> list[_Beam]:
    beams = [_beam(points.point, light, strength) for light, strength in zip(scene.lights, _STRENGTHS, strict=True)]
    return [_Beam(beams[0].direction, beams[0].strength * points.lit), *beams[1:]]


def _beam(point: Vectors, light: Vector, strength: float) -> _Beam:
    """Return the beam of one light; its strength falls with the square of the distance."""
    x, y, z = (np.float32(place) - axis for place, axis in zip(light, point, strict=True))
    square = x * x + y * y + z * z
    length = np.sqrt(square)
    at_middle = float(light[0] ** 2 + light[1] ** 2 + light[2] ** 2)
    return _Beam((x / length, y / length, z / length), np.divide(np.float32(strength * at_middle), square))


def _gloss(ray: Vectors, facing: Vectors, beams: list[_Beam], doublings: int) -> Array:
    """Return Blinn's specular highlight of all lights, with the exponent ``2 ** doublings``."""
    total = np.zeros_like(ray[0])
    for beam in beams:
        x, y, z = (towards - along for towards, along in zip(beam.direction, ray, strict=True))
        shine = np.maximum(dot(facing, unit((x, y, z))), 0)
        for _ in range(doublings):
            shine = shine * shine
        total += beam.strength * shine
    return total


def _mirrored(ray: Vectors, facing: Vectors) -> Array:
    """Return the reflection in metal: a light floor below, a wall that darkens towards the top above."""
    height = ray[2] - 2 * dot(ray, facing) * facing[2]
    floor = np.float32(0.42) + np.float32(0.35) * height
    wall = np.float32(0.62) * (1 - height) * (1 - height) + np.float32(0.1)
    return np.where(height < 0, np.maximum(floor, np.float32(0.12)), wall)
