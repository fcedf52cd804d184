"""Scenes: same bytes for the same (seed, split, index), and a truth that fits the picture."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from hgkd_mm.scenes import CLASSES, SceneFolder
from hgkd_mm.scenes.recipes import build_object
from hgkd_mm.scenes.renderer import (
    MIN_VISIBLE_CLUTTER,
    MIN_VISIBLE_MAIN,
    SUPERSAMPLING,
    Scene,
    compose,
    render_scene,
    truth,
)
from hgkd_mm.scenes.shapes import PAINTS, box, ellipse, stroke
from hgkd_mm.scenes.surfaces import FIELDS, fractal_noise


@pytest.fixture(scope='module')
def scenes() -> list[Scene]:
    return [render_scene('train', index, seed=3, size=96) for index in range(36)]


def shoelace(outline: np.ndarray) -> float:
    x, y = outline.T
    return 0.5 * abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))))


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def test_a_scene_depends_on_seed_split_and_index_alone() -> None:
    alone, again = (render_scene('train', 4, seed=5, size=64) for _ in range(2))
    np.testing.assert_array_equal(alone.image, again.image)
    np.testing.assert_array_equal(alone.instance_map, again.instance_map)
    assert alone.instances == again.instances
    for seed, split, index in ((6, 'train', 4), (5, 'val', 4), (5, 'train', 16)):
        other = render_scene(split, index, seed=seed, size=64)
        assert np.abs(other.image.astype(int) - alone.image).mean() > 10


def test_twelve_classes_in_balance_and_their_maps(scenes: list[Scene]) -> None:
    assert len(CLASSES) == 12
    assert sorted(CLASSES) == list(CLASSES)  # as ImageFolder-like data sets number them
    for scene in scenes:
        assert scene.image.shape == (96, 96, 3)
        assert scene.instance_map.shape == (96, 96)
        assert scene.image.dtype == scene.instance_map.dtype == np.uint8
        assert scene.image.std() > 8
        assert set(np.unique(scene.instance_map)) - {0} == set(range(1, len(scene.instances) + 1))
        for number, instance in enumerate(scene.instances, 1):
            mask = scene.instance_map == number
            x0, y0, x1, y1 = instance.box
            assert mask.sum() == instance.area == mask[y0:y1, x0:x1].sum()
            assert mask[y0].any() and mask[y1 - 1].any()
            assert mask[:, x0].any() and mask[:, x1 - 1].any()


def test_one_main_object_large_and_visible_enough(scenes: list[Scene]) -> None:
    clutter = 0
    for index, scene in enumerate(scenes):
        (main,) = [instance for instance in scene.instances if instance.main]
        others = [instance for instance in scene.instances if not instance.main]
        clutter += len(others)
        assert main.label == index % 12
        assert main.label not in [other.label for other in others]
        assert main.visibility >= MIN_VISIBLE_MAIN
        assert all(other.visibility >= MIN_VISIBLE_CLUTTER for other in others)
        assert all(other.area < main.area for other in others)
        assert 0.08 <= main.area / 96**2 <= 0.5
    assert clutter >= len(scenes) // 2  # up to two a scene are tried
    assert any(i.visibility < 1 for s in scenes for i in s.instances if i.main)


def test_occlusion_takes_pixels_from_what_lies_behind() -> None:
    canvas, checked = 64 * SUPERSAMPLING, 0
    for index in range(24):
        layers, _ = compose(index % 12, canvas, np.random.default_rng(index))
        masks = [layer.on_canvas(canvas) for layer in layers]
        scene_instances, instance_map = truth(layers, range(1, len(layers) + 1), 64)
        for below, mask in enumerate(masks):
            above = np.logical_or.reduce([np.zeros_like(mask), *masks[below + 1 :]])
            visible = (mask & ~above).sum() / mask.sum()
            assert scene_instances[below].visibility == pytest.approx(visible, abs=1e-4)
            if above.any() and (mask & above).any():
                checked += 1
                # A pixel of the picture all of whose samples are under something shows it not.
                hidden = above.reshape(64, SUPERSAMPLING, 64, SUPERSAMPLING).all(axis=(1, 3))
                assert not (hidden & (instance_map == below + 1)).any()
    assert checked >= 5


def test_the_picture_shows_an_edge_where_the_map_does(scenes: list[Scene]) -> None:
    ratios = []
    for scene in scenes:
        grey = cv2.cvtColor(scene.image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        gradient = np.hypot(cv2.Sobel(grey, -1, 1, 0), cv2.Sobel(grey, -1, 0, 1))
        inside = (scene.instance_map > 0).astype(np.uint8)
        edge = cv2.morphologyEx(inside, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
        ratios.append(gradient[edge].mean() / gradient[~edge].mean())
    assert np.median(ratios) > 1.5


def test_size_scales_the_scene() -> None:
    small, large = (render_scene('train', 7, seed=1, size=size) for size in (64, 192))
    assert [i.label for i in small.instances] == [i.label for i in large.instances]
    for a, b in zip(small.instances, large.instances, strict=True):
        np.testing.assert_allclose(np.array(a.box) * 3, b.box, atol=6)
        assert b.area == pytest.approx(9 * a.area, rel=0.08)


@pytest.mark.parametrize('name', CLASSES)
def test_objects_are_normalised_and_vary(name: str) -> None:
    objects = [build_object(name, np.random.default_rng(seed)) for seed in range(3)]
    spans = set()
    for parts in objects:
        assert {part.paint for part in parts} <= set(PAINTS)
        assert 'skin' in {part.paint for part in parts}
        points = np.concatenate([o for part in parts for o in part.outlines])
        np.testing.assert_allclose(points.min(axis=0), -points.max(axis=0), atol=1e-9)
        assert np.abs(points).max() == pytest.approx(1)
        spans.add(points.tobytes())
    assert len(spans) == 3


def test_outlines_have_the_areas_of_their_figures() -> None:
    assert shoelace(ellipse(0.3, 0.1, 0.5, 0.2, angle=0.7)) == pytest.approx(np.pi * 0.1, rel=0.01)
    assert shoelace(box(-1, -2, 1, 2)) == pytest.approx(8)
    assert shoelace(box(-1, -2, 1, 2, radius=0.5)) == pytest.approx(
        8 - (4 - np.pi) * 0.25, rel=0.005
    )
    assert shoelace(stroke([(0, 0), (1, 0), (2, 0)], 0.1)) == pytest.approx(0.2)


@pytest.mark.parametrize('kind', FIELDS)
def test_textures_stay_in_range_in_float32(kind: str) -> None:
    u, v = np.meshgrid(*[np.linspace(-1, 1, 40, dtype=np.float32)] * 2)
    field = FIELDS[kind](u, v, np.random.default_rng(0))
    assert field.shape == (40, 40) and field.dtype == np.float32
    assert field.min() >= 0 and field.max() <= 1


def test_noise_spectrum_falls_with_frequency() -> None:
    images = [
        fractal_noise((128, 128), np.random.default_rng(seed), octaves=6) for seed in range(8)
    ]
    power = np.mean([np.abs(np.fft.fft2(im - im.mean())) ** 2 for im in images], axis=0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(128) * 128, np.fft.fftfreq(128) * 128))
    bands = [power[(frequency >= f) & (frequency < 2 * f)].mean() for f in (4, 8, 16, 32)]
    slope = np.polyfit(np.log2([4, 8, 16, 32]), np.log2(bands), 1)[0] / 2
    assert -2.6 < slope < -0.8  # amplitude against frequency; natural images have about -1


def test_folder_holds_what_was_rendered(tmp_path: Path) -> None:
    folder = SceneFolder(out=tmp_path, seed=2, size=48, train=14, val=3)
    assert not folder.is_complete()
    list(folder.write(workers=1))
    assert folder.is_complete()
    assert json.loads((tmp_path / 'meta.json').read_text())['counts'] == {'train': 14, 'val': 3}
    lines = [json.loads(line) for line in (tmp_path / 'train.jsonl').read_text().splitlines()]
    assert [line['label'] for line in lines] == [*range(12), 0, 1]
    scene = render_scene('train', 13, seed=2, size=48)
    assert lines[13]['image'] == 'train/butterfly/000013.jpg'
    assert lines[13]['instances'][0]['box'] == list(scene.instances[0].box)
    image = cv2.imread(str(tmp_path / lines[13]['image']))[..., ::-1]
    assert np.abs(image.astype(int) - scene.image).mean() < 8


def test_half_written_folder_is_completed_to_what_two_processes_write(tmp_path: Path) -> None:
    whole, half = (SceneFolder(out=tmp_path / name, size=32, train=40, val=5) for name in 'wh')
    assert len(list(whole.write(workers=2))) == 45
    writing = half.write(workers=1)
    next(writing)
    writing.close()
    assert not half.is_complete()
    assert len(list(half.write(workers=1))) == 45
    assert files(half.out) == files(whole.out)
    assert list(half.write(workers=1)) == []


@pytest.mark.parametrize('finished', [True, False])
def test_folder_with_other_scenes_is_refused(tmp_path: Path, finished: bool) -> None:
    writing = SceneFolder(out=tmp_path, size=32, train=5, val=2).write(workers=1)
    next(writing)
    if finished:
        list(writing)
    with pytest.raises(FileExistsError, match=r'other Scenes: seed 0, not 1\. Choose'):
        list(SceneFolder(out=tmp_path, seed=1, size=32, train=5, val=2).write(workers=1))


@pytest.mark.parametrize('wrong', [dict(size=16), dict(seed=-1), dict(val=-1)])
def test_what_cannot_be_rendered_is_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match='size >= 32 and seed, train, val >= 0'):
        SceneFolder(out=tmp_path, **wrong)
