"""How many images of a data set are broken, and when that is too many."""

import logging

import torch
from mmengine.logging import print_log

# Below this many broken files a run goes on whatever their share: 1 of 3 says little.
MIN_BROKEN = 3
# The share is taken of at least this many files, so that bad luck at the start stops nothing.
MIN_SEEN = 100
_UNSEEN, _READABLE, _BROKEN = 0, 1, 2


class BrokenImages:
    """Notes which files were read and which were broken, and stops past a share of broken ones.

    Counts distinct files, however often each is read. The notes lie in shared memory, one byte
    a file, so all worker processes of a data loader count together and later epochs remember.
    Each rank of a distributed run counts the files that it has read itself.

    The run stops at the ``MIN_BROKEN``-th broken file or later, once more than ``max_broken`` of
    the files seen are broken. While fewer than ``MIN_SEEN`` files have been seen, the share is
    taken of ``MIN_SEEN``, or of all files where there are fewer.

    Args:
        size: Number of files of the data set.
        max_broken: Largest tolerated share, 0 to 1. 0 stops at the first broken file.
        key: Config key that sets the share, for the message.

    Raises:
        ValueError: ``max_broken`` is no share.
    """

    def __init__(self, *, size: int, max_broken: float, key: str) -> None:
        if not 0 <= max_broken <= 1:
            raise ValueError(f'{key} is {max_broken}; set it to a share from 0 to 1.')
        self.max_broken = max_broken
        self.key = key
        self._notes = torch.full((size,), _UNSEEN, dtype=torch.uint8).share_memory_()

    @property
    def seen(self) -> int:
        """Number of distinct files read so far, broken ones included."""
        return int(torch.count_nonzero(self._notes))

    @property
    def broken(self) -> int:
        """Number of distinct files found broken so far."""
        return int((self._notes == _BROKEN).sum())

    def is_broken(self, index: int) -> bool:
        """Whether the file was found broken before, in any worker process."""
        return self._notes[index].item() == _BROKEN

    def note_readable(self, index: int) -> None:
        """Counts a file that could be read."""
        self._notes[index] = _READABLE

    def note_broken(self, index: int, reason: str) -> None:
        """Counts a broken file and warns.

        Warns of each of the first ten files, then whenever their number has doubled.

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
                f'{self.max_broken:g} that {self.key} allows. The last one: {reason} Remove or '
                f'repair such files, or raise {self.key}.'
            )
        if broken <= 10 or broken & (broken - 1) == 0:
            print_log(
                f'Skipped broken image number {broken} of {seen} read so far: {reason}',
                logger='current',
                level=logging.WARNING,
            )
