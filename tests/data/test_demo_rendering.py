"""Renderers: pixels that match their labels, the same on every machine and with any number of workers."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest

from shipbench.data.demo.rendering import clevr, dsprites
from shipbench.data.demo.rendering.clevr_render import SAMPLES, View, look, render
from shipbench.data.demo.rendering.clevr_scene import DEPTH_EDGES, Camera, Scene, Thing, count_label, distance_label
from shipbench.data.demo.rendering.dsprites import Sprite

SQUARE, ELLIPSE, HEART = range(3)


def centroid(image: np.ndarray) -> tuple[float, float]:
    """Return the mean x and y of the white pixels' centres."""
    rows, columns = np.nonzero(image[..., 0])
    return float(columns.mean()) + 0.5, float(rows.mean()) + 0.5


def turned(scene: Scene, index: int, **changes: object) -> Scene:
    """Return the scene with one object changed."""
    things = list(scene.things)
    things[index] = Thing(**{**vars(things[index]), **changes})
    return Scene(tuple(things), scene.camera, scene.lights)


def scene_of(*things: Thing) -> Scene:
    """Return a scene of these objects with a fixed camera and fixed lights."""
    template = clevr.draw(seed=9, index=0).scene
    return Scene(things, template.camera, template.lights)


def thing(x: float, y: float, **changes: object) -> Thing:
    whole = {"shape": "sphere", "material": "rubber", "colour": "red", "radius": 0.7, "turn": (1.0, 0.0)}
    return Thing(x=x, y=y, **{**whole, **changes})


def on_picture(camera: Camera, point: np.ndarray, size: int) -> tuple[float, float]:
    """Project ``point`` to (x, y) in pixels by the matrix formula, independently of the renderer."""
    axes = np.stack([camera.right, -camera.up, camera.forward])
    x, y, depth = axes @ (point - camera.position)
    return (x / depth / 0.457 + 1) * size / 2, (y / depth / 0.305 + 1) * size / 2


def where(view: View, index: int) -> tuple[float, float]:
    rows, columns = np.nonzero(view.hit == index)
    return (float(columns.mean()) + 0.5) / SAMPLES, (float(rows.mean()) + 0.5) / SAMPLES


@pytest.mark.parametrize("shape", [SQUARE, ELLIPSE])
def test_a_sprite_is_centred_at_its_x_and_y(shape: int) -> None:
    for x, y in itertools.product((0, 1, 15, 16, 31), repeat=2):
        middle = centroid(dsprites.draw(Sprite(shape, scale=3, orientation=7, x=x, y=y)))
        assert middle == pytest.approx((16.5 + x, 16.5 + y), abs=0.2)


@pytest.mark.parametrize("shape", [SQUARE, ELLIPSE, HEART])
def test_the_largest_sprite_fits_into_the_picture(shape: int) -> None:
    for orientation, x, y in itertools.product(range(40), (0, 31), (0, 31)):
        image = dsprites.draw(Sprite(shape, scale=5, orientation=orientation, x=x, y=y))
        assert not image[0].any()
        assert not image[-1].any()
        assert not image[:, 0].any()
        assert not image[:, -1].any()


@pytest.mark.parametrize("shape", [SQUARE, ELLIPSE, HEART])
def test_the_area_of_a_sprite_grows_with_the_square_of_its_scale(shape: int) -> None:
    areas = [float((dsprites.draw(Sprite(shape, scale, 0, 16, 16)) > 0).mean()) for scale in range(6)]
    assert areas == sorted(areas)
    assert areas[5] / areas[0] == pytest.approx(4.0, rel=0.15)


def test_sprites_are_the_same_on_every_machine() -> None:
    drawn = [dsprites.draw(Sprite(s, k, o, 3, 28)) for s in range(3) for k in (0, 5) for o in (0, 3, 11)]
    digest = hashlib.sha256(b"".join(image.tobytes() for image in drawn)).hexdigest()
    assert digest == "307d25ab12f347118985dc76096be7085659688119e562ceb8f8861213ed50ec"


def test_sampled_sprites_are_distinct_balanced_and_labelled_by_their_x() -> None:
    images, labels = dsprites.sample(seed=5, count=320, bins=16)
    assert images.shape == (320, 64, 64, 3)
    assert set(np.unique(images)) == {0, 255}
    assert len({image.tobytes() for image in images}) == 320
    assert np.array_equal(np.bincount(labels), np.full(16, 20))
    middles = np.array([centroid(image)[0] for image in images])
    assert np.abs(middles - (16.5 + 2 * labels + 0.5)).max() < 2.5
    assert np.corrcoef(middles, labels)[0, 1] > 0.995


def test_sprites_depend_on_the_seed_alone() -> None:
    once, again, other = (dsprites.sample(seed, 20, 4)[0] for seed in (1, 1, 2))
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)


@pytest.mark.parametrize("cell", [0, 3, 7, 8, 20, 31, 40, 47])
def test_scene_labels_agree_with_a_recount(cell: int) -> None:
    picture = clevr.draw(seed=1, index=cell)
    scene, camera = picture.scene, picture.scene.camera
    view = look(scene, clevr.SIZE)
    assert len(np.unique(view.hit[view.hit >= 0])) == 3 + clevr.labels(scene)[0]
    depths = [float(np.dot(t.centre - camera.position, camera.forward)) for t in scene.things]
    assert clevr.labels(scene)[1] == int(np.digitize(min(depths), DEPTH_EDGES))
    assert clevr.labels(scene) == (cell % 8, cell // 8)


@pytest.mark.parametrize("cell", [7, 23, 47])
def test_objects_do_not_touch_and_are_all_visible(cell: int) -> None:
    scene = clevr.draw(seed=2, index=cell).scene
    view = look(scene, clevr.SIZE)
    assert len(scene.things) == 10
    assert all(view.visible_pixels(index) >= 12 for index in range(10))
    for a, b in itertools.combinations(scene.things, 2):
        assert np.hypot(a.x - b.x, a.y - b.y) >= a.radius + b.radius + 0.249


def test_an_object_is_drawn_where_the_camera_matrix_projects_it() -> None:
    scene = scene_of(thing(-1.5, 0.0), thing(1.0, 2.0, shape="cylinder", radius=0.35))
    view = look(scene, 60)
    for index, item in enumerate(scene.things):
        assert where(view, index) == pytest.approx(on_picture(scene.camera, item.centre, 60), abs=0.7)


def test_a_nearer_object_hides_one_behind_it() -> None:
    camera = scene_of().camera
    back = -1.3 * camera.forward[:2] / np.hypot(*camera.forward[:2])
    front, hidden = thing(float(back[0]), float(back[1])), thing(0.0, 0.0, radius=0.35)
    assert look(scene_of(hidden), 60).visible_pixels(0) > 20
    assert look(scene_of(front, hidden), 60).visible_pixels(1) == 0


@pytest.mark.parametrize("shape", ["cube", "sphere", "cylinder"])
def test_surface_normals_face_the_camera_and_have_length_one(shape: str) -> None:
    from shipbench.data.demo.rendering.clevr_geometry import dot, normal

    scene = scene_of(thing(0.3, -0.4, shape=shape, turn=(0.8, 0.6)))
    view = look(scene, 40)
    here = view.hit == 0
    point, ray = (tuple(axis[here] for axis in vectors) for vectors in (view.point, view.direction))
    facing = normal(scene.things[0], (point[0], point[1], point[2]))
    assert dot(facing, facing) == pytest.approx(1.0, abs=1e-4)
    assert (dot(facing, (ray[0], ray[1], ray[2])) < 0.05).all()


def test_the_floor_is_darker_in_the_shadow_than_on_the_lit_side() -> None:
    item = thing(0.0, 0.0)
    scene = scene_of(item)
    image = render(scene, look(scene, 96)).astype(float)
    away = -scene.lights[0, :2] / np.hypot(*scene.lights[0, :2]) * 0.95
    shadow, lit = (on_picture(scene.camera, np.array([*(sign * away), 0.0]), 96) for sign in (1, -1))
    assert image[int(shadow[1]), int(shadow[0])].mean() < 0.75 * image[int(lit[1]), int(lit[0])].mean()


def test_colour_material_and_shape_each_change_the_picture() -> None:
    scene = scene_of(thing(0.0, 0.0))
    plain = render(scene, look(scene, 48))
    for change in ({"colour": "cyan"}, {"material": "metal"}, {"shape": "cube"}, {"radius": 0.35}, {"x": 1.0}):
        other = turned(scene, 0, **change)
        assert np.abs(render(other, look(other, 48)).astype(int) - plain).max() > 40


def test_a_red_object_is_red_and_the_floor_is_grey() -> None:
    scene = scene_of(thing(0.0, 0.0))
    view = look(scene, 48)
    image = render(scene, view).astype(int)
    x, y = (int(v) for v in where(view, 0))
    assert image[y, x, 0] > 2 * image[y, x, 1]
    assert np.ptp(image[-1, 0]) < 6


@pytest.mark.parametrize(("nearest", "label"), [(7.99, 0), (8.0, 1), (8.49, 1), (9.99, 4), (10.0, 5), (12.0, 5)])
def test_distance_bins_are_closed_on_the_near_side(nearest: float, label: int) -> None:
    straight = Camera(np.zeros(3), np.array([1.0, 0, 0]), np.array([0, 0, 1.0]), np.array([0, 1.0, 0]))
    scene = Scene((thing(0.0, nearest), thing(1.0, nearest + 3)), straight, np.zeros((3, 3)))
    assert distance_label(scene) == label


def test_counts_start_at_three() -> None:
    assert count_label(scene_of(thing(0, 0), thing(2, 0), thing(-2, 0))) == 0


def test_any_number_of_workers_draws_the_same_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clevr, "_CHUNK", 2)
    sets = []
    for cores in ("1", "2"):
        monkeypatch.setenv("LOKY_MAX_CPU_COUNT", cores)
        sets.append(clevr.draw_set(seed=3, count=5))
    assert np.array_equal(sets[0][0], sets[1][0])
    assert np.array_equal(sets[0][1], sets[1][1])
    assert np.array_equal(sets[0][0], np.stack([clevr.draw(3, index).image for index in range(5)]))
    assert sets[0][0].shape == (5, 112, 112, 3)
    assert len({image.tobytes() for image in sets[0][0]}) == 5
