from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.pickles import MakesFolder
from mmengine.visualization import LocalVisBackend

from hgkd_mm.utils.work_dir import BusyError, held, newest_checkpoint, passed_on, read_scalars
from hgkd_mm.weights.reading import CheckpointError, UntrustedCheckpointError


def save(path: Path, iteration: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    torch.save({'meta': {'iter': iteration}, 'state_dict': {}}, path)
    return path


HOLD = (
    'import sys; from pathlib import Path; from hgkd_mm.utils.work_dir import held\n'
    'with held(Path(sys.argv[1])): print("held", flush=True); input()'
)


@contextmanager
def holding(folder: Path, **settings: Any) -> Iterator[subprocess.Popen]:
    """A process that holds the folder until the block ends."""
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    other = subprocess.Popen([sys.executable, '-c', HOLD, str(folder)], **pipes, **settings)
    try:
        assert other.stdout.readline() == 'held\n'
        yield other
    finally:
        other.kill()
        other.communicate()


def test_a_folder_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / 'new' / 'run'
    with holding(folder) as other:
        message = rf'{folder} .*{other.pid}\).*--work-dir'
        with pytest.raises(BusyError, match=message), held(folder):
            pass
    with held(folder), pytest.raises(BusyError), held(folder):
        pass
    with held(folder):
        pass
    assert not folder.exists()


def test_a_started_process_keeps_the_folder_that_it_was_given(tmp_path: Path) -> None:
    folder = tmp_path / 'run'
    with ExitStack() as stack:
        with held(folder) as lock:
            settings = dict(env=os.environ | passed_on(folder), pass_fds=[lock.fileno()])
            stack.enter_context(holding(folder, **settings))
        with pytest.raises(BusyError), held(folder):
            pass
    with held(folder):
        pass


def test_where_no_lock_can_be_had_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / '.run.lock').mkdir()
    with held(tmp_path / 'run') as lock:
        assert lock is None
    assert 'cannot be held' in ''.join(capsys.readouterr())


def test_the_newest_checkpoint_is_the_one_that_is_furthest_on(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    save(tmp_path / 'epoch_9.pth', 90)
    newest = save(tmp_path / 'epoch_10.pth', 100)
    save(tmp_path / 'iter_95.pth', 95)
    save(tmp_path / 'backbone_timm_epoch_11.pth', 110)
    assert newest_checkpoint(tmp_path) == newest
    later = save(tmp_path / 'elsewhere' / 'iter_101.pth', 101)
    assert newest_checkpoint(tmp_path, tmp_path / 'elsewhere') == later


def test_a_copied_folder_goes_on_from_its_own_files(tmp_path: Path) -> None:
    old = save(tmp_path / 'run' / 'epoch_2.pth', 2)
    (tmp_path / 'run' / 'last_checkpoint').write_text(str(old))
    shutil.copytree(tmp_path / 'run', tmp_path / 'copy')
    assert newest_checkpoint(tmp_path / 'copy') == tmp_path / 'copy' / 'epoch_2.pth'


def test_a_name_of_another_kind_is_found_by_the_note(tmp_path: Path) -> None:
    path = save(tmp_path / 'mine_4.pth', 4)
    assert newest_checkpoint(tmp_path) is None
    (tmp_path / 'last_checkpoint').write_text('/moved/away/mine_4.pth')
    assert newest_checkpoint(tmp_path) == path


def test_damaged_files_are_passed_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = save(tmp_path / 'epoch_1.pth', 1)
    cut = save(tmp_path / 'epoch_2.pth', 2)
    cut.write_bytes(cut.read_bytes()[:-100])
    torch.save({'state_dict': {}}, tmp_path / 'epoch_3.pth')
    torch.save(torch.ones(2), tmp_path / 'epoch_4.pth')
    assert newest_checkpoint(tmp_path) == good
    told = ''.join(capsys.readouterr())
    assert 'epoch_2.pth' in told and 'epoch_3.pth' in told and 'epoch_1.pth' not in told
    good.unlink()
    with pytest.raises(CheckpointError, match='--resume .*epoch_3.pth.*epoch_2.pth'):
        newest_checkpoint(tmp_path)


def test_a_file_that_is_not_trusted_is_not_passed_over(tmp_path: Path) -> None:
    save(tmp_path / 'epoch_1.pth', 1)
    made, newest = tmp_path / 'made', tmp_path / 'epoch_2.pth'
    torch.save({'meta': {'iter': 2}, 'beside': MakesFolder(made)}, newest)
    with pytest.raises(UntrustedCheckpointError, match='epoch_2.pth.*--trust-checkpoint'):
        newest_checkpoint(tmp_path)
    assert not made.exists()
    assert newest_checkpoint(tmp_path, trusted=True) == newest


def log(work_dir: Path, timestamp: str, *records: tuple[dict, int]) -> Path:
    folder = work_dir / timestamp / 'vis_data'
    backend = LocalVisBackend(str(folder))
    for scalars, step in records:
        backend.add_scalars(scalars, step=step, file_path='run.json')
    return folder / 'scalars.json'


def test_the_scalars_of_a_run_and_of_one_that_goes_on(tmp_path: Path) -> None:
    assert read_scalars(tmp_path) == {}
    first = {'loss': 4.0, 'lr': 1e-3, 'note': 'text'}
    log(tmp_path, '20250101_000000', (first, 1), ({'loss': 3.0}, 2), ({'loss': 9.0}, 3))
    LocalVisBackend(str(tmp_path / '20250101_000000' / 'vis_data')).add_scalar('knn/top1', 40.0, 2)
    file = log(tmp_path, '20250102_000000', ({'loss': 2.0}, 3), ({'loss': float('nan')}, 4))
    # half a line of a killed run is skipped
    with file.open('a') as stream:
        stream.write('{"loss": 3.0, "st')
    curves = read_scalars(tmp_path)
    assert set(curves) == {'loss', 'lr', 'knn/top1'}
    assert curves['loss'].steps.tolist() == [1, 2, 3, 4]
    assert curves['loss'].values[:3].tolist() == [4.0, 3.0, 2.0]
    assert math.isnan(curves['loss'].values[3])
    assert curves['knn/top1'].steps.tolist() == [2] and curves['knn/top1'].values.tolist() == [40.0]
