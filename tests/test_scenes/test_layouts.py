"""Scenes as COCO and ADE20K: every mask to the pixel, perfect predictions score 1, restartable."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hgkd_mm.scenes import CLASSES, SceneFolder
from hgkd_mm.scenes.extras import render_extra
from hgkd_mm.scenes.renderer import GAP, render_scene

COUNTS = {'train': 24, 'val': 12}
FOLDERS = {'train': ('train2017', 'training'), 'val': ('val2017', 'validation')}


def files(folder: Path) -> dict[str, bytes]:
    found = sorted(path for path in folder.rglob('*') if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture(scope='module')
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = SceneFolder(out=tmp_path_factory.mktemp('scenes'), size=64, **COUNTS)
    assert len(list(folder.write(layouts=True, workers=1))) == 26 + 14
    return folder.out


def load(scenes: Path, split: str) -> COCO:
    return COCO(str(scenes / 'coco' / 'annotations' / f'instances_{FOLDERS[split][0]}.json'))


def truths(split: str) -> Iterator[tuple[int, np.ndarray, list, list]]:
    """Each picture's id, instance map, labels and crowd flags, as rendered."""
    pictures = [render_scene(split, index, size=64) for index in range(COUNTS[split])]
    pictures += [render_extra(split, index, size=64) for index in range(2)]
    for image_id, scene in enumerate(pictures, 1):
        labels = [instance.label for instance in scene.instances]
        crowds = [int(scene.crowd and number == 0) for number in range(len(labels))]
        yield image_id, scene.instance_map, labels, crowds


@pytest.mark.parametrize('split', COUNTS)
def test_every_segmentation_is_its_instance_to_the_pixel(scenes: Path, split: str) -> None:
    coco, seen = load(scenes, split), 0
    for image_id, instance_map, labels, crowds in truths(split):
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


@pytest.mark.parametrize('split', COUNTS)
def test_images_and_categories_are_as_coco_lists_them(scenes: Path, split: str) -> None:
    coco, folder = load(scenes, split), scenes / 'coco' / FOLDERS[split][0]
    names = [category['name'] for category in coco.loadCats(coco.getCatIds())]
    assert names == list(CLASSES) and coco.getCatIds() == list(range(1, 13))
    assert len(coco.imgs) == COUNTS[split] + 2 * np.ceil(0.03 * COUNTS[split])
    assert {p.name for p in folder.iterdir()} == {i['file_name'] for i in coco.imgs.values()}
    assert {(image['width'], image['height']) for image in coco.imgs.values()} == {(64, 64)}
    lines = (scenes / f'{split}.jsonl').read_text().splitlines()
    for image_id, line in enumerate(map(json.loads, lines), 1):
        image = folder / coco.imgs[image_id]['file_name']
        assert image.read_bytes() == (scenes / line['image']).read_bytes()


def test_extra_pictures_are_empty_or_a_crowd_beside_ordinary_objects() -> None:
    beside = 0
    for index in range(8):
        extra = render_extra('train', index, seed=2, size=96)
        assert extra.image.shape == (96, 96, 3) and extra.image.std() > 3
        labels = [instance.label for instance in extra.instances]
        if index % 2 == 0:
            assert labels == [] and not extra.crowd and not extra.instance_map.any()
            continue
        assert extra.crowd and labels[0] not in labels[1:]
        numbers = set(np.unique(extra.instance_map)) - {0, GAP}
        assert numbers == set(range(1, len(labels) + 1))
        flock = (extra.instance_map == 1).astype(np.uint8)
        parts = cv2.connectedComponentsWithStats(flock)[2][1:, cv2.CC_STAT_AREA]
        assert (parts > 15).sum() >= 3
        beside += len(labels) - 1
    assert beside >= 4


def test_extra_pictures_have_a_stream_of_their_own() -> None:
    image, again = (render_extra('train', 3, seed=5, size=64).image for _ in range(2))
    np.testing.assert_array_equal(image, again)
    for seed, split, index in ((6, 'train', 3), (5, 'val', 3), (5, 'train', 5)):
        other = render_extra(split, index, seed=seed, size=64)
        assert np.abs(other.image.astype(int) - image).mean() > 5


@pytest.mark.parametrize('split', COUNTS)
def test_ade_maps_hold_the_classes(scenes: Path, split: str) -> None:
    ade, name, unlabelled = scenes / 'ade', FOLDERS[split][1], 0
    images, maps = (sorted((ade / kind / name).iterdir()) for kind in ('images', 'annotations'))
    assert [image.stem for image in images] == [path.stem for path in maps]
    for image, path, (image_id, instance_map, labels, _) in zip(
        images, maps, truths(split), strict=True
    ):
        found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert found.shape == (64, 64) and found.dtype == np.uint8
        expected = np.ones((64, 64), int)
        for number, label in enumerate(labels, 1):
            expected[instance_map == number] = label + 2
        expected[instance_map == GAP] = 0
        np.testing.assert_array_equal(found, expected)
        unlabelled += (found == 0).any()
        in_coco = scenes / 'coco' / FOLDERS[split][0] / f'{image_id:012d}.jpg'
        assert image.read_bytes() == in_coco.read_bytes()
    assert unlabelled == 1  # the crowd


def average_precision(coco: COCO, found: list[dict], kind: str) -> float:
    evaluation = COCOeval(coco, coco.loadRes(copy.deepcopy(found)), kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[0]


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
@pytest.mark.parametrize('split', COUNTS)
def test_perfect_predictions_score_one(scenes: Path, split: str, kind: str) -> None:
    coco = load(scenes, split)

    def detection(image_id: int, category: int, mask: np.ndarray, score: float) -> dict:
        rle = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))
        shape = (
            {'segmentation': rle} if kind == 'segm' else {'bbox': mask_utils.toBbox(rle).tolist()}
        )
        return {'image_id': image_id, 'category_id': category, 'score': score, **shape}

    perfect, members = [], []
    for image_id, instance_map, labels, crowds in truths(split):
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


def test_layouts_leave_the_scenes_as_they_are(tmp_path: Path, scenes: Path) -> None:
    later = SceneFolder(out=tmp_path, size=64, **COUNTS)
    list(later.write(workers=1))
    before, stamp = files(tmp_path), (tmp_path / 'meta.json').stat().st_mtime_ns
    assert later.is_complete() and not later.is_complete(layouts=True)
    writing = later.write(layouts=True, workers=1)
    next(writing)
    writing.close()
    assert later.is_complete() and not later.is_complete(layouts=True)
    list(later.write(layouts=True, workers=2))
    assert files(tmp_path) == files(scenes)
    assert before.items() <= files(tmp_path).items()
    assert (tmp_path / 'meta.json').stat().st_mtime_ns == stamp
    assert list(later.write(layouts=True, workers=1)) == []


def test_layouts_of_other_scenes_are_refused(tmp_path: Path) -> None:
    folder = SceneFolder(out=tmp_path, size=32, train=2, val=1)
    list(folder.write(layouts=True, workers=1))
    path = tmp_path / 'layouts.json'
    path.write_text(path.read_text().replace('"train": 2', '"train": 4'))
    with pytest.raises(FileExistsError, match=r'layouts.json is of other Scenes: extras'):
        list(folder.write(layouts=True, workers=1))
