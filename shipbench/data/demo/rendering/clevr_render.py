"""The ray tracer, in float32 numpy: from a scene to a picture.

The frame is CLEVR's (3:2) squeezed to a square, as VTAB's direct resize squeezes it. Each pixel is the mean of
``SAMPLES`` x ``SAMPLES`` rays; each of them uses a different point of the key light, which softens the shadows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from shipbench.data.demo.rendering.clevr_geometry import Array, Vectors, along, interval
from shipbench.data.demo.rendering.clevr_scene import Camera, Scene, Thing, Vector
from shipbench.data.demo.rendering.clevr_shading import Shaded, floor_colour, thing_colour

SAMPLES = 2
FLOOR = -1

_HALF_WIDTH, _HALF_HEIGHT = 0.457, 0.305  # of the frame, at depth 1
_LIGHT_RADIUS = 0.7
_CONTACT_REACH = 4.0  # radii
_CONTACT_SHADE = np.float32(0.5)
_AHEAD = np.float32(1e-3)

Window: TypeAlias = tuple[slice, slice]


@dataclass(frozen=True)
class View:
    """The camera's view, one value per ray: direction, depth and point of the hit, object index (-1: the floor)."""

    direction: Vectors
    depth: Array
    point: Vectors
    hit: NDArray[np.int8]

    def visible_pixels(self, index: int) -> float:
        """Return the number of pixels of the final picture that show the object."""
        return float(np.count_nonzero(self.hit == index)) / SAMPLES**2


def look(scene: Scene, size: int) -> View:
    """Cast ``(size * SAMPLES) ** 2`` rays into the scene and return the first hit of each."""
    direction = _rays(scene.camera, size * SAMPLES)
    origin = _constant(scene.camera.position)
    depth = -origin[2] / direction[2]
    hit = np.full(depth.shape, FLOOR, np.int8)
    for index, thing in enumerate(scene.things):
        window = _window(scene.camera, _corners(thing), size * SAMPLES)
        enter, leave = interval(thing, origin, _cut(direction, window))
        nearer = (enter < leave) & (enter < depth[window])
        depth[window][nearer] = enter[nearer]
        hit[window][nearer] = index
    return View(direction, depth, along(origin, direction, depth), hit)


def render(scene: Scene, view: View) -> NDArray[np.uint8]:
    """Return the picture ``(size, size, 3)`` of a scene from its view."""
    lit = _key_light_reaches(scene, view)
    colour = list(floor_colour(Shaded(view.point, view.direction, lit), _open_sky(scene, view), scene))
    for index, thing in enumerate(scene.things):
        here = view.hit == index
        points = Shaded(_pick(view.point, here), _pick(view.direction, here), lit[here])
        for channel, values in zip(colour, thing_colour(points, thing, scene), strict=True):
            channel[here] = values
    return np.stack([_to_pixels(channel) for channel in colour], axis=-1)


def _rays(camera: Camera, resolution: int) -> Vectors:
    """Return directions whose component along the camera's axis is 1, so that a ray's parameter is its depth."""
    steps = (np.arange(resolution) + 0.5) * (2.0 / resolution) - 1.0
    across, down = (steps * _HALF_WIDTH)[None, :], (steps * _HALF_HEIGHT)[:, None]
    x, y, z = (
        (camera.forward[axis] + across * camera.right[axis] - down * camera.up[axis]).astype(np.float32)
        for axis in range(3)
    )
    return x, y, z


def _key_light_reaches(scene: Scene, view: View) -> Array:
    """Return 1 where the key light reaches the hit of a ray, 0 where an object shades it."""
    light = _light_points(scene.lights[0], view.depth.shape[0])
    lit = np.ones_like(view.depth)
    for index, thing in enumerate(scene.things):
        window = _window(scene.camera, _shadow_corners(thing, scene.lights[0]), view.depth.shape[0])
        point, target = _cut(view.point, window), _cut(light, window)
        to_light = (target[0] - point[0], target[1] - point[1], target[2] - point[2])
        enter, leave = interval(thing, point, to_light)
        shaded = (enter < leave) & (leave > _AHEAD) & (view.hit[window] != index)
        lit[window][shaded] = 0
    return lit


def _open_sky(scene: Scene, view: View) -> Array:
    """Return the share of open sky above points of the floor: 1 far from all objects, less close to them."""
    sky = np.ones_like(view.depth)
    for thing in scene.things:
        reach = _CONTACT_REACH * thing.radius
        window = _window(scene.camera, _floor_square(thing, reach), view.depth.shape[0])
        x, y, _ = _cut(view.point, window)
        dx, dy, square = x - np.float32(thing.x), y - np.float32(thing.y), np.float32(thing.radius**2)
        near = square / np.maximum(dx * dx + dy * dy, square)
        sky[window] *= 1 - _CONTACT_SHADE * near * near
    return sky


def _floor_square(thing: Thing, half: float) -> Vector:
    return np.array([[thing.x + a * half, thing.y + b * half, 0.0] for a in (-1, 1) for b in (-1, 1)])


def _light_points(centre: Vector, resolution: int) -> Vectors:
    """Return the point of the key light that each ray uses: a square grid with one point per ray of a pixel."""
    shifts = (np.arange(SAMPLES) - (SAMPLES - 1) / 2) * (_LIGHT_RADIUS / SAMPLES * 2)
    row = np.tile(shifts, resolution // SAMPLES)
    shape = (resolution, resolution)
    x = np.broadcast_to((centre[0] + row)[None, :], shape).astype(np.float32)
    y = np.broadcast_to((centre[1] + row)[:, None], shape).astype(np.float32)
    return x, y, np.full(shape, centre[2], np.float32)


def _corners(thing: Thing) -> Vector:
    """Return the corners ``(8, 3)`` of an upright box around ``thing``."""
    signs = np.array([[a, b, c] for a in (-1.0, 1.0) for b in (-1.0, 1.0) for c in (-1.0, 1.0)])
    return thing.centre + signs * np.array([thing.radius, thing.radius, thing.half_height])


def _shadow_corners(thing: Thing, light: Vector) -> Vector:
    """Return points ``(8 * 5, 3)`` whose hull contains ``thing`` and its shadow on the floor."""
    corners = _corners(thing)
    clouds = [corners]
    for x, y in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        source = light + np.array([x, y, 0.0]) * _LIGHT_RADIUS
        reach = source[2] / (source[2] - corners[:, 2:])
        clouds.append(source + reach * (corners - source))
    return np.concatenate(clouds)


def _window(camera: Camera, points: Vector, resolution: int) -> Window:
    """Return the window of rows and columns that contains the projections of all ``points``."""
    x, y, z = (points - camera.position).T
    depth, across, up = (a[0] * x + a[1] * y + a[2] * z for a in (camera.forward, camera.right, camera.up))
    columns = (across / depth / _HALF_WIDTH + 1) * (resolution / 2)
    rows = (1 - up / depth / _HALF_HEIGHT) * (resolution / 2)
    return _span(rows, resolution), _span(columns, resolution)


def _span(places: Vector, resolution: int) -> slice:
    first, last = int(np.floor(np.min(places))) - 1, int(np.ceil(np.max(places))) + 1
    return slice(min(max(first, 0), resolution), min(max(last, 0), resolution))


def _constant(vector: Vector) -> Vectors:
    x, y, z = (np.full((1, 1), component, np.float32) for component in vector)
    return x, y, z


def _cut(vectors: Vectors, window: Window) -> Vectors:
    return vectors[0][window], vectors[1][window], vectors[2][window]


def _pick(vectors: Vectors, mask: NDArray[np.bool_]) -> Vectors:
    return vectors[0][mask], vectors[1][mask], vectors[2][mask]


def _to_pixels(channel: Array) -> NDArray[np.uint8]:
    """Average each pixel's rays in a fixed order and encode them with a square root as the display's gamma curve."""
    total = np.zeros_like(channel[::SAMPLES, ::SAMPLES])
    for row in range(SAMPLES):
        for column in range(SAMPLES):
            total += channel[row::SAMPLES, column::SAMPLES]
    return np.rint(255 * np.sqrt(np.clip(total / SAMPLES**2, 0, 1))).astype(np.uint8)
