"""BrokenImages: what it counts and where it stops."""

import logging
import multiprocessing

import pytest
from mmengine.logging import MMLogger

from hgkd_mm.datasets import BrokenImages


def record(size: int, max_broken: float = 0.05) -> BrokenImages:
    return BrokenImages(size=size, max_broken=max_broken, key='SOME.max_broken')


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


def test_counts_files_not_readings() -> None:
    notes = record(1000)
    for _ in range(50):
        notes.note_readable(0)
        notes.note_broken(1, 'it is.')
    assert (notes.seen, notes.broken) == (2, 1)
    assert notes.is_broken(1) and not notes.is_broken(0) and not notes.is_broken(2)


def test_message_names_file_share_and_key() -> None:
    with pytest.raises(RuntimeError) as stop:
        record(10, 0.0).note_broken(0, '/a/b.jpg cannot be read.')
    for part in ('/a/b.jpg cannot be read.', '1 of the 1 images', 'share of 0 ', 'SOME.max_broken'):
        assert part in str(stop.value)


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
    with pytest.raises(ValueError, match='SOME.max_broken'):
        record(3, share)


def test_forked_processes_count_together() -> None:
    notes = record(10, 1.0)
    context = multiprocessing.get_context('fork')
    for index in (3, 4):
        process = context.Process(target=notes.note_broken, args=(index, 'it is.'))
        process.start()
        process.join()
        assert process.exitcode == 0
    assert notes.broken == 2 and notes.is_broken(3)
