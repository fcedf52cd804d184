import math
from pathlib import Path

import pytest
from mmengine.visualization import LocalVisBackend

from hgkd_mm.inspect import read_scalars


def log(work_dir: Path, timestamp: str, *records: tuple[dict, int]) -> Path:
    folder = work_dir / timestamp / 'vis_data'
    backend = LocalVisBackend(str(folder))
    for scalars, step in records:
        backend.add_scalars(scalars, step=step, file_path='run.json')
    return folder / 'scalars.json'


def test_curves_of_one_run(tmp_path: Path) -> None:
    log(tmp_path, '20250101_000000', ({'loss': 2.5, 'lr': 1e-3, 'epoch': 1}, 10))
    LocalVisBackend(str(tmp_path / '20250101_000000' / 'vis_data')).add_scalar('knn/top1', 40.0, 12)
    log(tmp_path, '20250101_000000', ({'loss': float('nan'), 'note': 'text'}, 20))
    curves = read_scalars(tmp_path)
    assert set(curves) == {'loss', 'lr', 'epoch', 'knn/top1'}
    assert curves['loss'].steps.tolist() == [10, 20]
    assert curves['loss'].values[0] == 2.5 and math.isnan(curves['loss'].values[1])
    assert curves['knn/top1'].steps.tolist() == [12]
    assert curves['knn/top1'].values.tolist() == [40.0]


def test_a_resumed_run_continues_the_curve(tmp_path: Path) -> None:
    log(tmp_path, '20250101_000000', ({'loss': 4.0}, 1), ({'loss': 3.0}, 2), ({'loss': 9.0}, 3))
    file = log(tmp_path, '20250102_000000', ({'loss': 2.0}, 3), ({'loss': 1.0}, 4))
    # half a line of a killed run is skipped
    with file.open('a') as stream:
        stream.write('{"loss": 3.0, "st')
    curve = read_scalars(str(tmp_path))['loss']
    assert curve.steps.tolist() == [1, 2, 3, 4]
    assert curve.values.tolist() == [4.0, 3.0, 2.0, 1.0]
    assert read_scalars(file)['loss'].values.tolist() == [2.0, 1.0]


def test_no_scalars_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='LocalVisBackend'):
        read_scalars(tmp_path)
