"""CLEVR-like scenes (objects, camera, lights) and their labels.

Source: Johnson et al. 2017, "CLEVR: A Diagnostic Dataset for Compositional Language and Elementary Visual Reasoning":
three shapes, two sizes, two materials, eight colours, three to ten objects that do not touch, camera and lights
jittered by half a unit and one unit. Labels follow VTAB's clevr-count and clevr-closest-object-distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Shape: TypeAlias = Literal["cube", "sphere", "cylinder"]
Material: TypeAlias = Literal["rubber", "metal"]
Vector: TypeAlias = NDArray[np.float64]

SHAPES: tuple[Shape, ...] = ("cube", "sphere", "cylinder")
MATERIALS: tuple[Material, ...] = ("rubber", "metal")
RADII = (0.7, 0.35)
COLOURS: dict[str, tuple[int, int, int]] = {
    "grey": (87, 87, 87),
    "red": (173, 35, 35),
    "blue": (42, 75, 215),
    "green": (29, 105, 20),
    "brown": (129, 74, 25),
    "purple": (129, 38, 192),
    "cyan": (41, 208, 208),
    "yellow": (255, 238, 51),
}
MIN_COUNT, MAX_COUNT = 3, 10
DEPTH_EDGES = (8.0, 8.5, 9.0, 9.5, 10.0)

_HALF_FLOOR = 3.0
_MIN_GAP = 0.25
_CAMERA = np.array([7.4, -6.6, 5.3])
_LOOK_AT = np.array([0.0, 0.0, 0.2])
_LIGHTS = np.array([[1.5, -7.5, 7.5], [7.0, 4.0, 5.0], [-5.5, 3.0, 5.0]])  # key, fill, back
_CAMERA_JITTER, _LIGHT_JITTER = 0.5, 1.0
_TRIES_PER_OBJECT = 60


@dataclass(frozen=True)
class Thing:
    """One object on the floor; its centre is ``half_height`` above the floor."""

    shape: Shape
    material: Material
    colour: str
    radius: float
    x: float
    y: float
    turn: tuple[float, float]

    @property
    def half_height(self) -> float:
        """Half the height; smaller for a cube, whose corners lie on the circle of a cylinder's wall."""
        return self.radius * 0.5**0.5 if self.shape == "cube" else self.radius

    @property
    def centre(self) -> Vector:
        """The centre ``(x, y, z)``."""
        return np.array([self.x, self.y, self.half_height])


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: its position and its orthonormal axes."""

    position: Vector
    right: Vector
    up: Vector
    forward: Vector

    def depth(self, point: Vector) -> float:
        """Return the depth of ``point`` along the camera's axis (CLEVR's third pixel coordinate)."""
        return _dot(point - self.position, self.forward)


@dataclass(frozen=True)
class Scene:
    """Objects, camera and lights; ``lights`` are the positions ``(3, 3)`` of key, fill and back light."""

    things: tuple[Thing, ...]
    camera: Camera
    lights: Vector


def count_label(scene: Scene) -> int:
    """Return the class of clevr-count: 0 for three objects, 7 for ten."""
    return len(scene.things) - MIN_COUNT


def distance_label(scene: Scene) -> int:
    """Return the class of clevr-dist: the depth range of the nearest object's centre."""
    nearest = min(scene.camera.depth(thing.centre) for thing in scene.things)
    return sum(nearest >= edge for edge in DEPTH_EDGES)


def sample_scene(rng: np.random.Generator, count: int, distance_class: int) -> Scene:
    """Draw a scene of ``count`` objects, the nearest of them in depth range ``distance_class``.

    Both are fixed, so that the number of objects reveals nothing about the distance, nor the distance about the number.
    """
    while True:
        camera = _sample_camera(rng)
        lights = _LIGHTS + rng.uniform(-_LIGHT_JITTER, _LIGHT_JITTER, (3, 3))
        things = _sample_things(rng, camera, count, distance_class)
        if things is not None:
            return Scene(things, camera, lights)


def _sample_camera(rng: np.random.Generator) -> Camera:
    position = _CAMERA + rng.uniform(-_CAMERA_JITTER, _CAMERA_JITTER, 3)
    forward = _unit(_LOOK_AT - position)
    right = _unit(np.array([forward[1], -forward[0], 0.0]))
    up = np.array(
        [
            right[1] * forward[2] - right[2] * forward[1],
            right[2] * forward[0] - right[0] * forward[2],
            right[0] * forward[1] - right[1] * forward[0],
        ]
    )
    return Camera(position, right, up, forward)


def _sample_things(
    rng: np.random.Generator, camera: Camera, count: int, distance_class: int
) -> tuple[Thing, ...] | None:
    """Place the nearest object in its range and the others behind the range's near edge; ``None`` if stuck."""
    edges = (0.0, *DEPTH_EDGES, np.inf)
    near, far = edges[distance_class], edges[distance_class + 1]
    things: list[Thing] = []
    for _ in range(_TRIES_PER_OBJECT * count):
        thing = _sample_thing(rng)
        depth = camera.depth(thing.centre)
        if near <= depth < (np.inf if things else far) and _stands_free(thing, things):
            things.append(thing)
        if len(things) == count:
            return tuple(things)
    return None


def _sample_thing(rng: np.random.Generator) -> Thing:
    angle = float(rng.uniform(0.0, 2.0 * np.pi))
    return Thing(
        shape=SHAPES[rng.integers(len(SHAPES))],
        material=MATERIALS[rng.integers(len(MATERIALS))],
        colour=tuple(COLOURS)[rng.integers(len(COLOURS))],
        radius=RADII[rng.integers(len(RADII))],
        x=float(rng.uniform(-_HALF_FLOOR, _HALF_FLOOR)),
        y=float(rng.uniform(-_HALF_FLOOR, _HALF_FLOOR)),
        turn=(round(float(np.cos(angle)), 12), round(float(np.sin(angle)), 12)),
    )


def _stands_free(thing: Thing, others: list[Thing]) -> bool:
    return all(
        (thing.x - other.x) ** 2 + (thing.y - other.y) ** 2 >= (thing.radius + other.radius + _MIN_GAP) ** 2
        for other in others
    )


def _dot(a: Vector, b: Vector) -> float:
    return float(a[0] * b[0] + a[1] * b[1] + a[2] * b[2])


def _unit(vector: Vector) -> Vector:
    return vector / float(np.sqrt(_dot(vector, vector)))
