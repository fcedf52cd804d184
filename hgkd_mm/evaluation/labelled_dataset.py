"""Labelled datasets for evaluation, checked before any work is done."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dataset import BaseDataset
from mmpretrain.registry import DATASETS
from torch.utils.data import Dataset, Subset

import hgkd_mm.datasets  # noqa: F401  registers LabelledFolder


def build_labelled_dataset(
    dataset: dict[str, Any] | Dataset,
    *,
    key: str,
    max_samples: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Builds a dataset that features and labels can be taken from.

    Args:
        dataset: config of an mmpretrain dataset with labels, or the dataset.
        key: config key that it came from, for the messages.
        max_samples: number of images, chosen at random; all by default.
        seed: of the choice.

    Returns:
        The dataset, or a ``Subset`` of it.

    Raises:
        FileNotFoundError: the folder or annotation file does not exist.
        ValueError: the dataset has no images, no labels or a single class, or its pipeline does
            not end with ``PackInputs``.
    """
    built = _build(dataset, key) if isinstance(dataset, dict) else dataset
    _check_item(built, key)
    size = len(built)  # type: ignore[arg-type]
    if max_samples is None or max_samples >= size:
        return built
    if max_samples < 1:
        raise ValueError(f'At most {max_samples} images of {key} were asked for; 1 is the least.')
    # Random, not the first or every n-th: folders are sorted by class, and some sets cycle.
    choice = torch.randperm(size, generator=torch.Generator().manual_seed(seed))[:max_samples]
    return Subset(built, choice.sort().values.tolist())


def check_same_classes(
    train: Dataset, val: Dataset, *, keys: tuple[str, str] = ('train_dataset', 'val_dataset')
) -> None:
    """Refuses two datasets, of these config keys, whose class indices stand for different classes.

    Compares the names of folders if both datasets number folders, the names of classes if
    neither does, and only the numbers of classes if one does: its folders may have other names
    than the classes.

    Raises:
        ValueError: both name their classes, and they differ.
    """
    folders, classes = ([of(train), of(val)] for of in (_folders, _classes))
    first, second = folders if all(folders) else classes
    same = len(first) == len(second) if any(folders) and not all(folders) else first == second
    if first and second and not same:
        differing = sorted(set(first) ^ set(second))
        raise ValueError(
            f'{keys[0]} has {len(first)} classes and {keys[1]} {len(second)}, and they are not the '
            f'same (in one only: {", ".join(differing[:5]) or "the order differs"}). Use the same '
            f"class folders, or type='LabelledFolder' if {keys[1]} lacks some."
        )


def _build(config: dict[str, Any], key: str) -> Dataset:
    try:
        return DATASETS.build(config)
    except (FileNotFoundError, NotADirectoryError, RuntimeError) as error:
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(
            f'{key} could not be built: {error} It needs labelled images, one subfolder per '
            f'class, in {key}.data_root (now {config.get("data_root", "")!r}).'
        ) from error


def _check_item(dataset: Dataset, key: str) -> None:
    item = dataset[0]
    sample = item.get('data_samples') if isinstance(item, dict) else None
    if sample is None or sample.get('gt_label') is None:
        raise ValueError(
            f'{key} does not yield labelled images: use a labelled dataset (for a CustomDataset: '
            'with_label=True, one subfolder per class) whose pipeline ends with '
            "dict(type='PackInputs')."
        )
    classes = _classes(dataset)
    if classes and len(classes) < 2:
        raise ValueError(
            f'All images of {key} are in one class ({classes[0]!r}), so any accuracy would be '
            f'100 %. Sort {key}.data_root into one subfolder per class.'
        )


def _inner(dataset: Dataset) -> Dataset:
    """The dataset in a subset or a wrapper, the first of several."""
    parts = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    return _inner(parts[0]) if isinstance(parts[0], Dataset) else dataset


def _folders(dataset: Dataset) -> tuple[str, ...]:
    # ImageNet has class names of its own; the folders that it numbers have others
    return tuple(getattr(_inner(dataset), 'folder_to_idx', ()))


def _classes(dataset: Dataset) -> tuple[str, ...]:
    inner = _inner(dataset)
    return tuple(inner.metainfo.get('classes') or ()) if isinstance(inner, BaseDataset) else ()
