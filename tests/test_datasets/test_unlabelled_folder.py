"""UnlabelledFolder: what it finds, in which order, and what it does with broken files."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate
from mmengine.logging import MMLogger
from PIL import Image
from torch.utils.data import DataLoader

from hgkd_mm.datasets import BrokenImages, UnlabelledFolder

PIPELINE = [dict(type='LoadColorImage'), dict(type='PackInputs')]


def write(root: Path, *names: str, size: int = 4) -> None:
    for level, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (size, size), (level, level, level)).save(path)


def spoil(root: Path, *names: str) -> None:
    for name in names:
        (root / name).write_bytes(b'not an image')


def numbered(count: int) -> list[str]:
    return [f'{i:03d}.png' for i in range(count)]


def dataset(root: Path, **options: object) -> UnlabelledFolder:
    return UnlabelledFolder(data_root=str(root), pipeline=PIPELINE, **options)


def paths(data: UnlabelledFolder, root: Path) -> list[str]:
    infos = [data.get_data_info(i) for i in range(len(data))]
    return [str(Path(info['img_path']).relative_to(root)) for info in infos]


def level(item: dict) -> int:
    return int(item['inputs'][0, 0, 0])


def test_finds_nested_mixed_case_images_in_order(tmp_path: Path) -> None:
    names = ['b/x.JPEG', 'b/c/d/y.WebP', 'a.PNG', 'Z.bmp', 'b/A.TiFf', 'b/z.tif', 'a/1.jpg']
    write(tmp_path, *names)
    write(tmp_path, '.hidden.png', '.thumbnails/x.png', 'b/.cache/deep/x.png')
    (tmp_path / 'notes.txt').write_text('no image')
    (tmp_path / 'b' / 'pngs').write_text('no image either')
    assert paths(dataset(tmp_path), tmp_path) == sorted(names)


def test_a_hidden_folder_above_the_root_does_not_hide_it(tmp_path: Path) -> None:
    write(tmp_path, '.cache/images/a.png')
    assert len(dataset(tmp_path / '.cache' / 'images')) == 1


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    write(tmp_path, 'elsewhere/a.png')
    (tmp_path / 'root').mkdir()
    (tmp_path / 'root' / 'link').symlink_to(tmp_path / 'elsewhere')
    assert paths(dataset(tmp_path / 'root'), tmp_path / 'root') == ['link/a.png']


def test_items(tmp_path: Path) -> None:
    write(tmp_path, 'a.png', 'b.png')
    item = dataset(tmp_path)[1]
    assert item['inputs'].shape == (3, 4, 4) and item['inputs'].dtype == torch.uint8
    assert level(item) == 1
    assert item['data_samples'].img_path == str(tmp_path / 'b.png')
    assert 'gt_label' not in item['data_samples']


@pytest.mark.parametrize('kind', ['missing', 'other files', 'a file'])
def test_no_images_is_a_sentence(tmp_path: Path, kind: str) -> None:
    root = tmp_path / 'images'
    if kind == 'a file':
        root.write_text('no folder')
    elif kind != 'missing':
        root.mkdir()
    if kind == 'other files':
        (root / 'a.txt').write_text('')
        write(root, '.hidden.png')
    with pytest.raises(FileNotFoundError) as error:
        dataset(root)
    assert str(root) in str(error.value)
    assert 'train_dataloader.dataset.data_root' in str(error.value)


def test_a_broken_image_is_replaced_by_the_same_one_each_time(tmp_path: Path) -> None:
    names = numbered(40)
    write(tmp_path, *names)
    spoil(tmp_path, '007.png')
    data = dataset(tmp_path)
    first = level(data[7])
    assert first != 7
    assert [level(data[7]) for _ in range(3)] == [first] * 3
    assert level(data[7 - 40]) == first
    # A fresh copy that has read other files before, and does not know yet what is broken:
    again = dataset(tmp_path)
    np.random.seed(5)
    found = [level(again[i]) for i in reversed(range(40))][::-1]
    assert found == [i if i != 7 else first for i in range(40)]
    assert (again.broken_images.seen, again.broken_images.broken) == (40, 1)
    # In a subset image 7 is another one.
    subset = again.get_subset(list(range(10, 40)))
    assert level(subset[7]) == 17 and subset.broken_images.broken == 0


def test_stops_with_the_path_past_the_share(tmp_path: Path) -> None:
    names = numbered(40)
    write(tmp_path, *names)
    spoil(tmp_path, *names[5:9])
    data = dataset(tmp_path, max_broken=0.05)  # of 40 files: 2; and MIN_BROKEN is 3
    with pytest.raises(RuntimeError, match=r'3 of the .*max_broken.*00[5-8]\.png'):
        for i in range(40):
            data[i]


@pytest.mark.parametrize('count', [1, 5])
def test_nothing_readable(tmp_path: Path, count: int) -> None:
    write(tmp_path, *numbered(count))
    spoil(tmp_path, *numbered(count))
    with pytest.raises(RuntimeError, match=f' {count} .*{tmp_path}'):
        dataset(tmp_path, max_broken=1.0)[0]


def test_other_errors_are_not_swallowed(tmp_path: Path) -> None:
    write(tmp_path, 'a.png', 'b.png')
    pipeline = [*PIPELINE[:1], dict(type='CenterCrop', crop_size=4), lambda results: 1 / 0]
    with pytest.raises(ZeroDivisionError):
        UnlabelledFolder(data_root=str(tmp_path), pipeline=pipeline)[0]


def test_workers_count_together_and_the_stop_reaches_the_loop(tmp_path: Path) -> None:
    names = numbered(24)
    write(tmp_path, *names)
    spoil(tmp_path, *names[::6])
    data = dataset(tmp_path, max_broken=1.0)
    loader = DataLoader(data, batch_size=4, num_workers=2, collate_fn=default_collate)
    assert sum(len(batch['inputs']) for batch in loader) == 24
    assert (data.broken_images.seen, data.broken_images.broken) == (24, 4)
    strict = dataset(tmp_path, max_broken=0.0)
    batches = iter(DataLoader(strict, batch_size=4, num_workers=1, collate_fn=default_collate))
    with pytest.raises(RuntimeError, match=r'UnlabelledFolder\.max_broken.*\.png'):
        list(batches)
    # The raised error holds the iterator in a reference cycle, whose collection waits 5 s.
    batches._shutdown_workers()


def record(size: int, max_broken: float = 0.05) -> BrokenImages:
    return BrokenImages(size=size, max_broken=max_broken)


def broken_until_stop(notes: BrokenImages, readable: int) -> int:
    """Notes `readable` good files, then broken ones; returns how many it took to stop."""
    for index in range(readable):
        notes.note_readable(index)
    for count in range(1, len(notes._notes) - readable + 1):
        try:
            notes.note_broken(readable + count - 1, 'it is.')
        except RuntimeError:
            return count
    return 0


@pytest.mark.parametrize(
    ('size', 'readable', 'max_broken', 'stops_at'),
    [
        (3, 2, 0.05, 0),  # 1 of 3 does not stop
        (4, 1, 0.05, 3),  # the third broken file of a small folder does
        (60, 0, 0.05, 4),  # of 60 files 3 are 5 %
        (10_000, 0, 0.05, 6),  # bad luck at the start: 5 of 100 are allowed
        (10_000, 1000, 0.05, 53),  # 52 of 1052 are 4.94 %, 53 of 1053 are 5.03 %
        (10_000, 1000, 0.2, 251),  # 250 of 1250 are 20 %
        (10_000, 1000, 0.0, 1),
        (50, 0, 1.0, 0),
    ],
)
def test_where_it_stops(size: int, readable: int, max_broken: float, stops_at: int) -> None:
    assert broken_until_stop(record(size, max_broken), readable) == stops_at


def test_warnings_count_and_do_not_flood() -> None:
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda entry: lines.append(entry.getMessage())  # type: ignore[method-assign]
    logger = MMLogger.get_instance('test_broken_images')
    logger.addHandler(handler)
    notes = record(70, 1.0)
    for index in range(70):
        notes.note_broken(index, f'file {index}.')
    assert lines[2] == 'Skipped broken image number 3 of 3 read so far: file 2.'
    assert [int(line.split()[4]) for line in lines] == [*range(1, 11), 16, 32, 64]


@pytest.mark.parametrize('share', [-0.1, 1.5, float('nan')])
def test_max_broken_is_a_share(share: float) -> None:
    with pytest.raises(ValueError, match='UnlabelledFolder.max_broken is'):
        record(3, share)
