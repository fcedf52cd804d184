from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hgkd_mm.visualization.folder_images import load_folder_images, training_size


def write(path: Path, size: tuple[int, int], colour: tuple[int, int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size, colour).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(6):
        name = f'{"ab"[index % 2]}/{index}.png'
        write(tmp_path / name, (20 + 7 * index, 30), (40 * index, 10, 200))
    return tmp_path


def test_images_of_any_size_come_out_alike(folder: Path) -> None:
    images = load_folder_images(folder, count=4, size=(16, 24), seed=1)
    assert images.pictures.shape == (4, 16, 24, 3) and images.pictures.dtype == np.uint8
    assert images.total == 6 and len(set(images.paths)) == 4
    for path, picture in zip(images.paths, images.pictures, strict=True):
        assert (picture == (40 * int(path.stem), 10, 200)).all()


def test_the_centre_is_cropped_after_the_short_side_is_resized(tmp_path: Path) -> None:
    picture = np.zeros((40, 100, 3), np.uint8)
    picture[:, 30:70] = (0, 255, 0)
    Image.fromarray(picture).save(tmp_path / 'wide.png')
    [shown] = load_folder_images(tmp_path, count=1, size=(20, 20)).pictures
    assert (shown[:, 1:-1] == (0, 255, 0)).all()


def test_the_choice_follows_the_seed(folder: Path) -> None:
    def chosen(seed: int) -> tuple[Path, ...]:
        return load_folder_images(folder, count=3, size=(8, 8), seed=seed).paths

    assert chosen(0) == chosen(0)
    assert len({chosen(seed) for seed in range(5)}) > 1


def test_fewer_images_than_asked_for(folder: Path) -> None:
    assert len(load_folder_images(folder, count=50, size=(8, 8)).paths) == 6


def test_broken_images_are_passed_over_and_none_is_shown_twice(folder: Path) -> None:
    for index in (1, 2, 3):
        next(folder.glob(f'*/{index}.png')).write_bytes(b'no image')
    images = load_folder_images(folder, count=6, size=(8, 8))
    assert sorted(path.stem for path in images.paths) == ['0', '4', '5']


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='holds no image .*give another folder'):
        load_folder_images(tmp_path, count=1, size=(8, 8))
    with pytest.raises(FileNotFoundError, match='There is no folder .*nowhere'):
        load_folder_images(tmp_path / 'nowhere', count=1, size=(8, 8))
    (tmp_path / 'x.png').write_bytes(b'')
    with pytest.raises(RuntimeError, match='None of the 1 images'):
        load_folder_images(tmp_path, count=1, size=(8, 8))
    with pytest.raises(ValueError, match='--num of 1 or more'):
        load_folder_images(tmp_path, count=0, size=(8, 8))


def loader(*pipeline: dict) -> dict:
    return dict(dataset=dict(type='X', pipeline=list(pipeline)))


def test_training_size() -> None:
    crop = dict(type='RandomResizedCrop', scale=96)
    resize = dict(type='Resize', scale=(500, 300))
    centre = dict(type='mmpretrain.CenterCrop', crop_size=(60, 80))
    assert training_size(dict(train_dataloader=loader(resize, crop, centre))) == (96, 96)
    assert training_size(dict(test_dataloader=loader(resize, centre))) == (60, 80)
    wrapped = dict(dataset=dict(type='RepeatDataset', times=2, **loader(crop)))
    assert training_size(dict(train_dataloader=wrapped)) == (96, 96)
    with pytest.raises(ValueError, match='give it with --size'):
        training_size(dict(train_dataloader=loader(resize), test_dataloader=None))
