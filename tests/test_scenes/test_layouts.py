"""Scenes as COCO and ADE20K: every mask to the pixel, perfect predictions score 1, restartable."""

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hgkd_mm.scenes import CLASSES, GAP, ExtraRenderer, SceneFolder, SceneLayouts
from hgkd_mm.scenes.layouts import outlines, run_lengths, segmentation

COUNTS = {'train': 24, 'val': 12}
FOLDERS = {'train': ('train2017', 'training'), 'val': ('val2017', 'validation')}


def request(out: Path, **changes: int) -> SceneLayouts:
    return SceneLayouts(scenes=SceneFolder(out=out, **{'size': 64, **COUNTS, **changes}))


def files(folder: Path) -> dict[str, bytes]:
    found = sorted(path for path in folder.rglob('*') if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture(scope='module')
def layouts(tmp_path_factory: pytest.TempPathFactory) -> SceneLayouts:
    layouts = request(tmp_path_factory.mktemp('scenes'))
    list(layouts.scenes.write(workers=1))
    assert list(layouts.write(workers=1)) == [26, 40]
    return layouts


def load(layouts: SceneLayouts, split: str) -> COCO:
    folder = layouts.scenes.out / 'coco' / 'annotations'
    return COCO(str(folder / f'instances_{FOLDERS[split][0]}.json'))


def truths(layouts: SceneLayouts, split: str) -> Iterator[tuple[int, np.ndarray, list, list]]:
    """Each picture's id, instance map, labels and crowd flags, from what is not COCO or ADE20K."""
    out = layouts.scenes.out
    lines = (out / f'{split}.jsonl').read_text().splitlines()
    for image_id, line in enumerate(map(json.loads, lines), 1):
        path = (out / 'annotations' / 'instance' / line['image']).with_suffix('.png')
        labels = [instance['label'] for instance in line['instances']]
        yield image_id, cv2.imread(str(path), -1), labels, [0] * len(labels)
    renderer = ExtraRenderer(size=64)
    for index in range(layouts.extras(split)):
        extra = renderer.render(split, index)
        yield len(lines) + 1 + index, extra.instance_map, [*extra.labels], [*extra.crowds]


@pytest.mark.parametrize('split', COUNTS)
def test_every_segmentation_is_its_instance_to_the_pixel(layouts: SceneLayouts, split: str) -> None:
    coco, seen = load(layouts, split), 0
    for image_id, instance_map, labels, crowds in truths(layouts, split):
        annotations = coco.imgToAnns[image_id]
        assert [a['category_id'] for a in annotations] == [label + 1 for label in labels]
        assert [a['iscrowd'] for a in annotations] == crowds
        for number, annotation in enumerate(annotations, 1):
            numbers = (number, GAP) if annotation['iscrowd'] else (number,)
            mask = np.isin(instance_map, numbers)
            np.testing.assert_array_equal(coco.annToMask(annotation), mask)
            assert annotation['area'] == mask.sum()
            assert annotation['bbox'] == list(cv2.boundingRect(mask.astype(np.uint8)))
            seen += 1
    assert seen == len(coco.anns) and set(coco.anns) == set(range(1, seen + 1))


def test_polygons_unless_there_is_a_hole_or_a_crowd(layouts: SceneLayouts) -> None:
    coco, kinds = load(layouts, 'train'), set()
    for annotation in coco.anns.values():
        outside = np.pad(1 - coco.annToMask(annotation), 1, constant_values=1)
        hole = cv2.connectedComponents(outside, connectivity=4)[0] > 2
        polygons = isinstance(annotation['segmentation'], list)
        assert polygons == (not hole and not annotation['iscrowd'])
        kinds.add((polygons, hole, annotation['iscrowd']))
    assert kinds == {(True, False, 0), (False, True, 0), (False, False, 1)}


def test_images_and_categories_are_as_coco_lists_them(layouts: SceneLayouts) -> None:
    out = layouts.scenes.out
    for split, count in COUNTS.items():
        coco = load(layouts, split)
        names = [category['name'] for category in coco.loadCats(coco.getCatIds())]
        assert names == list(CLASSES) and coco.getCatIds() == list(range(1, 13))
        assert set(coco.dataset) == {'info', 'licenses', 'images', 'annotations', 'categories'}
        assert len(coco.imgs) == count + 2 * np.ceil(0.03 * count)
        folder = out / 'coco' / FOLDERS[split][0]
        assert {p.name for p in folder.iterdir()} == {i['file_name'] for i in coco.imgs.values()}
        for image in coco.imgs.values():
            assert (image['width'], image['height']) == (64, 64)
            if image['scene']:
                assert (folder / image['file_name']).samefile(out / image['scene'])
        assert [bool(image['scene']) for image in coco.imgs.values()].count(True) == count


def test_extra_pictures_are_empty_or_a_crowd_beside_ordinary_objects() -> None:
    renderer, beside = ExtraRenderer(seed=2, size=96), 0
    for index in range(8):
        extra = renderer.render('train', index)
        assert extra.image.shape == (96, 96, 3) and extra.image.std() > 3
        if index % 2 == 0:
            assert extra.labels == extra.crowds == () and not extra.instance_map.any()
            continue
        assert extra.crowds == (True, *[False] * (len(extra.labels) - 1))
        assert extra.labels[0] not in extra.labels[1:]
        numbers = set(np.unique(extra.instance_map)) - {0, GAP}
        assert numbers == set(range(1, len(extra.labels) + 1))
        flock = (extra.instance_map == 1).astype(np.uint8)
        parts = cv2.connectedComponentsWithStats(flock)[2][1:, cv2.CC_STAT_AREA]
        assert (parts > 15).sum() >= 3
        beside += len(extra.labels) - 1
    assert beside >= 4


def test_extra_pictures_have_a_stream_of_their_own() -> None:
    renderer = ExtraRenderer(seed=5, size=64)
    renderer.render('train', 1)
    again = ExtraRenderer(seed=5, size=64).render('train', 3)
    np.testing.assert_array_equal(renderer.render('train', 3).image, again.image)
    for seed, split, index in ((6, 'train', 3), (5, 'val', 3), (5, 'train', 5)):
        other = ExtraRenderer(seed=seed, size=64).render(split, index)
        assert np.abs(other.image.astype(int) - again.image).mean() > 5
    with pytest.raises(ValueError, match='size >= 32 pixels, got size=16'):
        ExtraRenderer(size=16)


@pytest.mark.parametrize('split', COUNTS)
def test_ade_maps_hold_the_classes(layouts: SceneLayouts, split: str) -> None:
    ade, name, unlabelled = layouts.scenes.out / 'ade', FOLDERS[split][1], 0
    images, maps = (sorted((ade / kind / name).iterdir()) for kind in ('images', 'annotations'))
    pairs = list(zip(images, maps, strict=True))
    assert [image.stem for image, _ in pairs] == [truth.stem for _, truth in pairs]
    for (image, path), (image_id, instance_map, labels, _) in zip(
        pairs, truths(layouts, split), strict=True
    ):
        found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert found.shape == (64, 64) and found.dtype == np.uint8
        expected = np.ones((64, 64), int)
        for number, label in enumerate(labels, 1):
            expected[instance_map == number] = label + 2
        expected[instance_map == GAP] = 0
        np.testing.assert_array_equal(found, expected)
        unlabelled += (found == 0).any()
        assert image.samefile(
            layouts.scenes.out / 'coco' / FOLDERS[split][0] / f'{image_id:012d}.jpg'
        )
    assert unlabelled == 1  # the crowd


def average_precision(coco: COCO, found: list[dict], kind: str) -> float:
    evaluation = COCOeval(coco, coco.loadRes(copy.deepcopy(found)), kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[0]


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
@pytest.mark.parametrize('split', COUNTS)
def test_perfect_predictions_score_one(layouts: SceneLayouts, split: str, kind: str) -> None:
    coco = load(layouts, split)

    def detection(image_id: int, category: int, mask: np.ndarray, score: float) -> dict:
        rle = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))
        shape = (
            {'segmentation': rle} if kind == 'segm' else {'bbox': mask_utils.toBbox(rle).tolist()}
        )
        return {'image_id': image_id, 'category_id': category, 'score': score, **shape}

    perfect, members = [], []
    for image_id, instance_map, labels, crowds in truths(layouts, split):
        for number, (label, crowd) in enumerate(zip(labels, crowds, strict=True), 1):
            mask = instance_map == number
            if not crowd:
                perfect.append(detection(image_id, label + 1, mask, 0.5))
                continue
            parts = cv2.connectedComponents(mask.astype(np.uint8))[1]
            for part in range(1, parts.max() + 1):
                members.append(detection(image_id, label + 1, parts == part, 0.9))
    assert len(members) >= 3
    assert average_precision(coco, perfect, kind) == pytest.approx(1)
    assert average_precision(coco, perfect + members, kind) == pytest.approx(1)
    (empty,) = [image_id for image_id in coco.imgs if not coco.imgToAnns[image_id]]
    wrong = detection(empty, perfect[0]['category_id'], np.eye(64), 0.9)
    assert average_precision(coco, [*perfect, wrong], kind) < 0.99
    for annotation in coco.anns.values():
        annotation['iscrowd'] = 0
    assert average_precision(coco, perfect + members, kind) < 0.99


def test_outlines_of_known_figures() -> None:
    mask = np.zeros((6, 8), bool)
    mask[1:3, 2:5] = True
    assert sorted(np.array(outlines(mask)[0]).reshape(-1, 2).tolist()) == [
        [2, 1], [2, 3], [5, 1], [5, 3],
    ]  # fmt: skip
    mask[3, 5] = mask[5, 7] = True  # one touches by a corner, one is apart
    assert len(outlines(mask)) == 2
    assert isinstance(segmentation(mask), list)
    mask[1:4, 0:3] = True
    mask[2, 1] = False
    assert outlines(mask) is None
    assert segmentation(mask) == run_lengths(mask)


@pytest.mark.parametrize('share', [0.02, 0.3, 0.6, 0.9, 1.0])
def test_any_mask_survives(share: float) -> None:
    for seed in range(20):
        mask = np.random.default_rng(seed).random((9, 7)) < share
        mask[0, 0] |= not mask.any()
        encoded = segmentation(mask)
        one = encoded if isinstance(encoded, list) else [encoded]
        drawn = mask_utils.decode(mask_utils.merge(mask_utils.frPyObjects(one, 9, 7)))
        np.testing.assert_array_equal(drawn, mask)
        lengths = run_lengths(mask)
        np.testing.assert_array_equal(
            mask_utils.decode(mask_utils.frPyObjects(lengths, 9, 7)), mask
        )


def test_layouts_leave_the_scenes_and_each_other_as_they_are(
    tmp_path: Path, layouts: SceneLayouts
) -> None:
    again = request(tmp_path)
    with pytest.raises(FileNotFoundError, match='no finished Scenes'):
        list(again.write(workers=1))
    list(again.scenes.write(workers=1))
    before = files(tmp_path)
    list(again.write(workers=2))
    assert files(tmp_path) == files(layouts.scenes.out)
    assert before.items() <= files(tmp_path).items()
    assert again.is_complete() and list(again.write(workers=1)) == []


def test_half_written_layouts_are_completed(tmp_path: Path, layouts: SceneLayouts) -> None:
    half = request(tmp_path)
    list(half.scenes.write(workers=1))
    writing = half.write(workers=1)
    assert next(writing) == 26
    writing.close()
    done = tmp_path / 'ade' / 'annotations' / 'training' / 'ADE_train_00000001.png'
    stamp = done.stat().st_mtime_ns
    assert not half.is_complete()
    assert list(half.write(workers=1)) == [40]
    assert done.stat().st_mtime_ns == stamp
    assert files(tmp_path) == files(layouts.scenes.out)


def test_images_are_copied_where_links_are_refused(
    tmp_path: Path, layouts: SceneLayouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError('no hard links here')

    copied = request(tmp_path)
    list(copied.scenes.write(workers=1))
    monkeypatch.setattr(os, 'link', refuse)
    list(copied.write(workers=1))
    assert files(tmp_path) == files(layouts.scenes.out)
    assert (tmp_path / 'coco' / 'val2017' / '000000000001.jpg').stat().st_nlink == 1


def test_other_layouts_are_refused(tmp_path: Path) -> None:
    layouts = request(tmp_path, train=2, val=1)
    list(layouts.scenes.write(workers=1))
    writing = layouts.write(workers=1)
    next(writing)
    with pytest.raises(FileExistsError, match=r'train.*val.*there.*asked for'):
        list(request(tmp_path).write(workers=1))
    list(writing)
    path = tmp_path / 'layouts.json'
    path.write_text(path.read_text().replace('"layouts_version": 1', '"layouts_version": 0'))
    with pytest.raises(FileExistsError, match='delete coco, ade, layouts.json'):
        list(layouts.write(workers=1))


def test_a_missing_map_is_named(tmp_path: Path) -> None:
    layouts = request(tmp_path, train=2, val=1)
    list(layouts.scenes.write(workers=1))
    (tmp_path / 'annotations/instance/train/butterfly/000001.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'butterfly/000001\.png is missing or broken'):
        list(layouts.write(workers=1))
