from __future__ import annotations

import sys
from pathlib import Path

import pytest
from helpers.tools import load_tool
from mmpretrain.datasets import CustomDataset

make_subset = load_tool('make_subset')
COUNTS = {'n01': 40, 'n02': 20, 'n10': 3}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three classes of ImageNet's layout, without pixels, and a file that is no image."""
    for name, count in COUNTS.items():
        (tmp_path / 'train' / name).mkdir(parents=True)
        for index in range(count):
            (tmp_path / 'train' / name / f'{name}_{index}.JPEG').touch()
    (tmp_path / 'train' / 'n01' / 'readme.txt').touch()
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, data: Path, *words: object) -> None:
    monkeypatch.setattr(sys, 'argv', list(map(str, ('make_subset.py', '--data', data, *words))))
    make_subset.main()


def test_the_meta_file_comes_first(data: Path) -> None:
    (data / 'meta').mkdir()
    (data / 'meta' / 'train.txt').write_text('b flat.JPEG 7\na.JPEG 3\n')
    assert make_subset.labelled_files(data) == [('a.JPEG', 3), ('b flat.JPEG', 7)]


def test_a_share_is_seeded(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    for seed in (0, 0, 1):
        run(monkeypatch, data, '--share', 0.1, '--seed', seed, '--out', data / 'list.txt')
        written.append((data / 'list.txt').read_text().splitlines())
    assert written[0] == sorted(written[0])
    assert written[0] == written[1] != written[2]


def test_list_is_by_file_name(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = data / 'names.txt'
    names.write_text('n10_2.JPEG\n\nn01_0.JPEG')
    run(monkeypatch, data, '--list', names, '--out', data / 'list.txt')
    assert (data / 'list.txt').read_text() == 'n01/n01_0.JPEG 0\nn10/n10_2.JPEG 2\n'
    names.write_text('n03_1.JPEG\nn03_2.JPEG\nn01_1.JPEG')
    with pytest.raises(ValueError, match=r'2 of the 3 listed images are not there.*n03_1.JPEG'):
        run(monkeypatch, data, '--list', names)
    other = data / 'train' / 'n01' / 'n10_2.JPEG'  # of two folders it is not clear which is meant
    other.write_bytes(b'')
    names.write_text('n10_2.JPEG')
    with pytest.raises(ValueError, match='--list'):
        run(monkeypatch, data, '--list', names)
    other.unlink()
    names.write_text('\n')
    with pytest.raises(ValueError, match='0 of the 0'):
        run(monkeypatch, data, '--list', names)


@pytest.mark.parametrize(
    ('counts', 'share', 'percent'),
    [([4], 1, '100'), ([100, 100], 0.01, '1'), ([1000], 1e-3, '0.1')],
)
def test_file_is_named_after_its_share(
    counts: list[int],
    share: float,
    percent: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / 'meta').mkdir()
    lines = [f'{label}/{i}.JPEG {label}' for label, n in enumerate(counts) for i in range(n)]
    (tmp_path / 'meta' / 'train.txt').write_text('\n'.join(lines))
    run(monkeypatch, tmp_path, '--share', share)
    written = tmp_path / 'meta' / f'train_{percent}pct.txt'
    assert len(written.read_text().splitlines()) == share * sum(counts)
    assert f' images ({percent} %)' in capsys.readouterr().out


def test_tool_writes_what_the_config_reads(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, data, '--share', 0.1)
    out = data / 'meta' / 'train_11pct.txt'
    assert capsys.readouterr().out == f'{out}: 7 of 63 images (11 %), 3 classes.\n'
    dataset = CustomDataset(
        data_root=str(data), data_prefix='train', ann_file='meta/train_11pct.txt'
    )
    assert [info['gt_label'] for info in dataset] == [0] * 4 + [1] * 2 + [2]
    assert all(Path(info['img_path']).is_file() for info in dataset)
