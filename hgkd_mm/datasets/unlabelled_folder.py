"""Any folder of images as a data set without labels; broken images are counted and skipped."""

import logging
import random
from collections.abc import Sequence
from os.path import expanduser
from pathlib import Path, PurePath
from typing import Any

import torch
from mmengine.logging import print_log
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import DATASETS

from .loading import UnreadableImageError

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff')

# Below this many broken files a run goes on whatever their share: 1 of 3 says little.
MIN_BROKEN = 3
# The share is taken of at least this many files, so that bad luck at the start stops nothing.
MIN_SEEN = 100
_UNSEEN, _READABLE, _BROKEN = 0, 1, 2


class BrokenImages:
    """Counts the distinct files that were read and those that were broken; stops past a share.

    The notes lie in shared memory, one byte a file, so all worker processes of a data loader
    count together, also in later epochs. Each rank counts the files that it read itself.

    The run stops at the ``MIN_BROKEN``-th broken file or later, once more than ``max_broken`` of
    the files seen are broken. Before ``MIN_SEEN`` files were seen, the share is taken of
    ``MIN_SEEN``, or of all files where there are fewer.

    Args:
        size: Number of files of the data set.
        max_broken: Largest tolerated share, 0 to 1. 0 stops at the first broken file.

    Raises:
        ValueError: ``max_broken`` is no share.
    """

    def __init__(self, *, size: int, max_broken: float) -> None:
        if not 0 <= max_broken <= 1:
            raise ValueError(
                f'UnlabelledFolder.max_broken is {max_broken}; set it to a share from 0 to 1.'
            )
        self.max_broken = max_broken
        self._notes = torch.full((size,), _UNSEEN, dtype=torch.uint8).share_memory_()

    @property
    def seen(self) -> int:
        """Distinct files read so far, broken ones included."""
        return int(torch.count_nonzero(self._notes))

    @property
    def broken(self) -> int:
        """Distinct files found broken so far, by any worker process."""
        return int((self._notes == _BROKEN).sum())

    def is_broken(self, index: int) -> bool:
        """Whether the file was found broken before."""
        return self._notes[index].item() == _BROKEN

    def note_readable(self, index: int) -> None:
        """Counts a file that could be read."""
        self._notes[index] = _READABLE

    def note_broken(self, index: int, reason: str) -> None:
        """Counts a broken file, and warns of the first ten and whenever their number doubles.

        Args:
            index: Of the file.
            reason: A sentence that names the file.

        Raises:
            RuntimeError: Too many are broken.
        """
        self._notes[index] = _BROKEN
        broken, seen = self.broken, self.seen
        limit = self.max_broken * max(seen, min(MIN_SEEN, len(self._notes)))
        if broken > limit and (broken >= MIN_BROKEN or self.max_broken == 0):
            raise RuntimeError(
                f'{broken} of the {seen} images read so far are broken, more than the share of '
                f'{self.max_broken:g} that UnlabelledFolder.max_broken allows. The last one: '
                f'{reason} Remove or repair such files, or raise the share.'
            )
        if broken <= 10 or broken & (broken - 1) == 0:
            print_log(
                f'Skipped broken image number {broken} of {seen} read so far: {reason}',
                logger='current',
                level=logging.WARNING,
            )


@DATASETS.register_module()
class UnlabelledFolder(CustomDataset):
    """All images below a folder, nested at will, without labels.

    Files are found by their extension in upper or lower case and sorted by their path, so the
    order is the same everywhere. Files and folders whose names start with a dot are skipped;
    links to folders are followed.

    An image that ``LoadColorImage`` refuses (begin the pipeline with it) is skipped with a
    warning that counts, and another image of the set, the same one each time, takes its place.
    `BrokenImages` says when there are so many that the run stops. Other errors of the pipeline
    are not caught.

    Args:
        data_root: The folder. '~' is the home folder.
        pipeline: Transforms, first ``LoadColorImage``.
        max_broken: Share of broken files, 0 to 1, past which the run stops.
        extensions: Those of image files, with their dots.
        **kwargs: Of mmpretrain's ``BaseDataset``: ``indices``, ``lazy_init``,
            ``serialize_data``, ``metainfo``.

    Raises:
        ValueError: ``max_broken`` is no share.
        FileNotFoundError: There is no such folder, or it holds no image.
        RuntimeError: When images are fetched: too many are broken, or all.
    """

    def __init__(
        self,
        *,
        data_root: str,
        pipeline: Sequence = (),
        max_broken: float = 0.05,
        extensions: Sequence[str] = EXTENSIONS,
        **kwargs: Any,
    ) -> None:
        self.max_broken = max_broken
        self.broken_images = BrokenImages(size=0, max_broken=max_broken)
        super().__init__(
            data_root=expanduser(data_root),
            pipeline=pipeline,
            with_label=False,
            extensions=extensions,
            **kwargs,
        )

    def full_init(self) -> None:
        """Lists the files; called by the constructor unless ``lazy_init`` is set."""
        if not self._fully_initialized:
            super().full_init()
            self.broken_images = BrokenImages(size=len(self), max_broken=self.max_broken)

    def get_subset(self, indices: Sequence[int] | int) -> 'UnlabelledFolder':
        """As mmengine's; the subset, whose images have other numbers, notes broken ones anew."""
        subset = super().get_subset(indices)
        subset.broken_images = BrokenImages(size=len(subset), max_broken=self.max_broken)
        return subset

    def is_valid_file(self, filename: str) -> bool:
        """Whether a path below ``data_root`` names an image and no part of it is hidden."""
        hidden = any(part.startswith('.') for part in PurePath(filename).parts)
        return not hidden and super().is_valid_file(filename)

    def load_data_list(self) -> list[dict]:
        """Lists the images; each is a dict with ``img_path``."""
        try:
            return super().load_data_list()
        except (OSError, RuntimeError) as error:
            kinds = ', '.join(sorted(self.extensions))
            raise FileNotFoundError(
                f'There is no folder {self.img_prefix!r} with images ({kinds}), looked from '
                f'{Path.cwd()}: set UnlabelledFolder.data_root '
                '(train_dataloader.dataset.data_root) to a folder of images, or '
                'UnlabelledFolder.extensions to theirs.'
            ) from error

    def prepare_data(self, idx: int) -> Any:
        """The image of that index through the pipeline, or the one that stands in for it."""
        index = idx % len(self)
        stand_ins = random.Random(index)
        # Enough draws to meet a readable image if there is one, save with odds below 1e-8.
        for _ in range(20 * len(self)):
            if not self.broken_images.is_broken(index):
                try:
                    data = super().prepare_data(index)
                except UnreadableImageError as error:
                    self.broken_images.note_broken(index, str(error))
                else:
                    self.broken_images.note_readable(index)
                    return data
            index = stand_ins.randrange(len(self))
        raise RuntimeError(f'None of the {len(self)} images below {self.img_prefix} can be read.')
