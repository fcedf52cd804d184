"""Images of folders, and normalization against mmpretrain's own preprocessors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS
from PIL import Image

from hgkd_mm.inspect.images import InputFormat, load_folder_images, training_size

PICTURES = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
STATISTICS = dict(mean=[120.0, 110.0, 100.0], std=[50.0, 60.0, 70.0])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(6):
        path = tmp_path / f'{"ab"[index % 2]}/{index}.png'
        path.parent.mkdir(exist_ok=True)
        Image.new('RGB', (20 + 7 * index, 30), (40 * index, 10, 200)).save(path)
    return tmp_path


def test_images_of_any_size_come_out_alike(folder: Path) -> None:
    images = load_folder_images(folder, count=4, size=(16, 24), seed=1)
    assert images.pictures.shape == (4, 16, 24, 3) and images.pictures.dtype == np.uint8
    assert len(set(images.paths)) == 4
    for path, picture in zip(images.paths, images.pictures, strict=True):
        assert (picture == (40 * int(path.stem), 10, 200)).all()
    assert len(load_folder_images(folder, count=50, size=(8, 8)).paths) == 6
    chosen = [load_folder_images(folder, count=3, size=(8, 8), seed=n).paths for n in (0, 0, 1, 2)]
    assert chosen[0] == chosen[1] and len(set(chosen)) > 1


def test_the_center_is_cropped_after_the_short_side_is_resized(tmp_path: Path) -> None:
    picture = np.zeros((40, 100, 3), np.uint8)
    picture[:, 30:70] = (0, 255, 0)
    Image.fromarray(picture).save(tmp_path / 'wide.png')
    [shown] = load_folder_images(tmp_path, count=1, size=(20, 20)).pictures
    assert (shown[:, 1:-1] == (0, 255, 0)).all()


def test_broken_images_are_skipped_and_none_is_shown_twice(folder: Path) -> None:
    for index in (1, 2, 3):
        next(folder.glob(f'*/{index}.png')).write_bytes(b'no image')
    images = load_folder_images(folder, count=6, size=(8, 8))
    assert sorted(path.stem for path in images.paths) == ['0', '4', '5']


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / 'nowhere'):
        with pytest.raises(FileNotFoundError, match=folder.name):
            load_folder_images(folder, count=1, size=(8, 8))
    (tmp_path / 'x.png').write_bytes(b'')
    with pytest.raises(RuntimeError, match='1 images'):
        load_folder_images(tmp_path, count=1, size=(8, 8))
    with pytest.raises(ValueError, match='--num'):
        load_folder_images(tmp_path, count=0, size=(8, 8))


def test_training_size() -> None:
    def loader(*pipeline: dict) -> dict:
        return dict(dataset=dict(type='X', pipeline=list(pipeline)))

    crop = dict(type='RandomResizedCrop', scale=96)
    resize = dict(type='Resize', scale=(500, 300))
    center = dict(type='mmpretrain.CenterCrop', crop_size=(60, 80))
    assert training_size(dict(train_dataloader=loader(resize, crop, center))) == (96, 96)
    assert training_size(dict(test_dataloader=loader(resize, center))) == (60, 80)
    wrapped = dict(dataset=dict(type='RepeatDataset', times=2, **loader(crop)))
    assert training_size(dict(train_dataloader=wrapped)) == (96, 96)
    with pytest.raises(ValueError, match='--size'):
        training_size(dict(train_dataloader=loader(resize), test_dataloader=None))


@pytest.mark.parametrize('rgb', [True, False])
def test_as_the_preprocessor_of_pre_training(rgb: bool) -> None:
    config = dict(type='SelfSupDataPreprocessor', to_rgb=rgb, **STATISTICS)
    input_format = InputFormat.of(dict(model=dict(data_preprocessor=config)))
    bgr = torch.from_numpy(PICTURES[..., ::-1].copy()).permute(0, 3, 1, 2)
    expected = MODELS.build(config)(dict(inputs=bgr, data_samples=None), False)['inputs']
    images = input_format.normalize(PICTURES)
    torch.testing.assert_close(images, expected)
    np.testing.assert_array_equal(input_format.restore(images), PICTURES)
    assert input_format.restore(images * 100).max() == 255


def test_the_preprocessor_of_a_config() -> None:
    outer = dict(mean=[1, 2, 3], std=[4, 5, 6], to_rgb=True)
    found = InputFormat.of(dict(model={}, data_preprocessor=outer))
    assert found == InputFormat(mean=(1, 2, 3), std=(4, 5, 6), rgb=True)
    inner = InputFormat.of(dict(model=dict(data_preprocessor=STATISTICS), data_preprocessor=outer))
    assert inner == InputFormat(mean=(120, 110, 100), std=(50, 60, 70), rgb=False)
    as_loaded = InputFormat.of(dict(model={})).normalize(PICTURES)
    np.testing.assert_array_equal(as_loaded.permute(0, 2, 3, 1).numpy(), PICTURES[..., ::-1])
