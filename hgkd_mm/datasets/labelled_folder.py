"""Images in a folder a class, numbered in every split as in training."""

from typing import Any

from mmengine import fileio
from mmpretrain.datasets import CustomDataset, ImageNet
from mmpretrain.datasets.custom import find_folders, get_samples
from mmpretrain.registry import DATASETS


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
                f'images in it: training knows no such class; correct the folders or {cure}.'
            )
        if not samples:
            raise RuntimeError(f'Found no images in the class folders of {self.img_prefix}.')
        return samples


@DATASETS.register_module()
class LabelledImageNet(LabelledFolder, ImageNet):
    """mmpretrain's ``ImageNet`` with the numbers of `LabelledFolder`."""
