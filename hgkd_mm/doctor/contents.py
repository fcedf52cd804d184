"""Whether the files of a data set fit each other, by a look at the first of them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from mmengine.dataset import BaseDataset

from hgkd_mm.utils.files import is_remote

from .files import files_below

FIRST = 20
# COCO's val2017 has 20 MB, train2017 450, which would take 10 s to read
_LARGEST_READ = 64e6


def content_problem(key: str, dataset: BaseDataset) -> str | None:
    """Says what does not fit in a data set whose folders and annotation file exist.

    Args:
        key: Of the data set in the config.
        dataset: Built with ``lazy_init``.

    Returns:
        One sentence with its cure, or None. Data sets of unknown kinds are not looked into.
    """
    if any(is_remote(path) for path in (*dataset.data_prefix.values(), dataset.ann_file or '')):
        return None
    # By name: mmdet and mmseg need not be imported to look at a classification data set.
    kinds = {kind.__name__ for kind in type(dataset).__mro__}
    if 'CocoDataset' in kinds:
        return _coco(key, dataset)
    if 'BaseSegDataset' in kinds:
        return _segmentation(key, dataset)
    if 'CustomDataset' in kinds:
        return _listed(key, dataset) if dataset.ann_file else _classes(key, dataset)
    return None


def _coco(key: str, dataset: BaseDataset) -> str | None:
    path = Path(dataset.ann_file)
    if path.stat().st_size > _LARGEST_READ:
        return None
    try:
        content = json.loads(path.read_text())
        images = [image['file_name'] for image in content['images']]
        categories = {category['name'] for category in content['categories']}
    except (KeyError, TypeError, ValueError) as error:
        return (
            f'{key}: {path} is not a COCO annotation file ({type(error).__name__}: {error}): it '
            'needs images, annotations and categories.'
        )
    classes = dataset.metainfo.get('classes', ())
    if not categories & set(classes):
        return (
            f'{key}: none of the {len(categories)} categories of {path} '
            f'({", ".join(sorted(categories)[:3])}, ...) is among metainfo.classes '
            f'({", ".join(classes[:3])}, ...), so every image would count as empty: set '
            f'{key}.metainfo.classes to the names in the file.'
        )
    return _absent(key, dataset.data_prefix['img'], images, f'that {path} lists', 'data_prefix.img')


def _segmentation(key: str, dataset: BaseDataset) -> str | None:
    images, maps = dataset.data_prefix['img_path'], dataset.data_prefix.get('seg_map_path')
    if not maps or Path(dataset.ann_file or '.').is_file():
        return None
    suffix = dataset.img_suffix
    first = list(itertools.islice(files_below(Path(images), (suffix.lower(),)), FIRST))
    if not first:
        return (
            f'{key}: no file in {images} ends with {suffix}: set {key}.img_suffix to the ending '
            'of the images.'
        )
    wanted = [name.removesuffix(suffix) + dataset.seg_map_suffix for name in first]
    return _absent(key, maps, wanted, f'for the images of {images}', 'seg_map_suffix')


def _listed(key: str, dataset: BaseDataset) -> str | None:
    with open(dataset.ann_file) as lines:
        first = [line.strip() for line in itertools.islice(lines, FIRST)]
    names = [line.rsplit(' ', 1)[0] if dataset.with_label else line for line in first if line]
    folder = dataset.data_prefix['img_path']
    return _absent(key, folder, names, f'that {dataset.ann_file} lists', 'data_prefix')


def _classes(key: str, dataset: BaseDataset) -> str | None:
    if not dataset.with_label:
        return None
    images = Path(dataset.data_prefix['img_path'])
    # a LabelledFolder takes its numbers from another folder than its images
    prefix = getattr(dataset, 'train_prefix', None)
    folder = Path(dataset.data_root, prefix) if prefix else images
    found = len(_folders(folder))
    wanted = dataset.CLASSES
    if prefix and not folder.is_dir():
        return (
            f'{key}: there is no folder {folder}, whose class folders number those of {images}: '
            f'set {key}.train_prefix to the folder of the training images.'
        )
    if found == 0:
        return (
            f'{key}: {folder} has no folders, and labels come from them: sort the images into one '
            f'folder a class, or set {key}.with_label=False if none are needed.'
        )
    if wanted is not None and len(wanted) != found:
        return (
            f'{key}: {folder} has {found} folders and {type(dataset).__name__} has {len(wanted)} '
            'classes: complete the folders; for other classes use type LabelledFolder.'
        )
    strange = sorted(
        name
        for name in _folders(images) - _folders(folder)
        if any(dataset.is_valid_file(path.name) for path in (images / name).rglob('*'))
    )
    if strange:
        return (
            f'{key}: {images} has the class {strange[0]}, which {folder} lacks: correct the '
            f'folders, or {key}.train_prefix.'
        )
    return None


def _folders(folder: Path) -> set[str]:
    return (
        {entry.name for entry in folder.iterdir() if entry.is_dir()} if folder.is_dir() else set()
    )


def _absent(key: str, folder: str, names: list[str], whose: str, setting: str) -> str | None:
    absent = [name for name in names[:FIRST] if not Path(folder, name).exists()]
    if not absent:
        return None
    return (
        f'{key}: of the first {len(names[:FIRST])} files {whose}, {len(absent)} are not in '
        f'{folder} ({absent[0]}, ...): complete the folder, or correct {key}.{setting}.'
    )
