"""Images in a folder a class, numbered in every split as in training."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine import fileio
from mmpretrain.datasets import CustomDataset, ImageNet
from mmpretrain.datasets.custom import find_folders, get_samples
from mmpretrain.registry import DATASETS
from sklearn.model_selection import train_test_split


@DATASETS.register_module()
class LabelledFolder(CustomDataset):
    """mmpretrain's ``CustomDataset``, whose class folders have the numbers of the training folder.

    mmpretrain numbers the folders of each split by themselves: a class that is missing from
    validation shifts all that follow. Here a split may lack classes. With an ``ann_file`` the
    numbers are those of the file.

    Args:
        train_prefix: Folder below ``data_root`` (or a whole path) that holds a folder for each
            class, those of the training images.
        **kwargs: Of mmpretrain's ``CustomDataset``.

    Raises:
        FileNotFoundError: There is no such folder, or it lacks a class that has images here.
        ValueError: It has another number of folders than ``classes``.
        RuntimeError: There are no images.
    """

    def __init__(self, *, train_prefix: str = 'train', **kwargs: Any) -> None:
        self.train_prefix = train_prefix
        super().__init__(**kwargs)

    def _find_samples(self) -> list[tuple[str, int]]:
        if not self.with_label:
            return super()._find_samples()
        train = fileio.join_path(self.data_root, self.train_prefix)
        cure = f'{type(self).__name__}.train_prefix'
        if not fileio.isdir(train):
            raise FileNotFoundError(
                f'There is no folder {train}, whose class folders number those of '
                f'{self.img_prefix}: set {cure} to the folder of the training images.'
            )
        classes, self.folder_to_idx = find_folders(train)
        if self.CLASSES is None:
            self._metainfo['classes'] = tuple(classes)
        elif len(self.CLASSES) != len(classes):
            raise ValueError(
                f'{train} has {len(classes)} class folders and {type(self).__name__} '
                f'{len(self.CLASSES)} classes: complete the folders, or correct {cure}.'
            )
        folders, _ = find_folders(self.img_prefix)
        numbers = {name: self.folder_to_idx.get(name, -1) for name in folders}
        samples, _ = get_samples(self.img_prefix, numbers, self.is_valid_file)
        strange = {path.split('/')[0] for path, number in samples if number < 0}
        if strange:
            raise FileNotFoundError(
                f'{train} has no folder {", ".join(sorted(strange))}, and {self.img_prefix} has '
                f'images in it: training has no such class; correct the folders or {cure}.'
            )
        if not samples:
            raise RuntimeError(f'Found no images in the class folders of {self.img_prefix}.')
        return samples


@DATASETS.register_module()
class LabelledImageNet(LabelledFolder, ImageNet):
    """mmpretrain's ``ImageNet`` with the numbers of `LabelledFolder`."""


def stratified_share(labels: Sequence[int], share: float, *, seed: int = 0) -> list[int]:
    """Sorted indices of a random share of every class, at least one image of each.

    By scikit-learn's ``train_test_split``, which would leave out classes of which the share is
    less than an image. Below a share of 1 at least as many images are left out as there are
    classes of which the share is an image or more.

    Raises:
        ValueError: The share is not above 0, or above 1.
    """
    if not 0 < share <= 1:
        raise ValueError(f'--share is a fraction, more than 0 and at most 1, and not {share}.')
    of_class: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        of_class[label].append(index)
    if share == 1:
        return list(range(len(labels)))
    generator = np.random.default_rng(seed)
    rare = {label for label, indices in of_class.items() if share * len(indices) < 1}
    picked = [int(generator.choice(of_class[label])) for label in sorted(rare)]
    common = [index for index, label in enumerate(labels) if label not in rare]
    if common:
        # Both parts need room for every class.
        count = min(int(share * len(common)), len(common) - (len(of_class) - len(rare)))
        chosen, _ = train_test_split(
            common, train_size=count, random_state=seed, stratify=[labels[i] for i in common]
        )
        picked += chosen
    return sorted(picked)
