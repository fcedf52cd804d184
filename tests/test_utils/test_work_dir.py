from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hgkd_mm.utils.checkpoint_file import CheckpointError
from hgkd_mm.utils.work_dir import BusyError, held, newest_checkpoint


def save(path: Path, iteration: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    torch.save({'meta': {'iter': iteration}, 'state_dict': {}}, path)
    return path


def test_a_folder_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / 'new' / 'run'
    code = 'import sys; from pathlib import Path; from hgkd_mm.utils.work_dir import held\n'
    code += 'with held(Path(sys.argv[1])): print("held", flush=True); input()'
    other = subprocess.Popen(
        [sys.executable, '-c', code, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert other.stdout.readline() == 'held\n'
        with pytest.raises(BusyError, match=rf'{folder} .*{other.pid}\).*--work-dir'), held(folder):
            pass
    finally:
        other.kill()
        other.communicate()
    with held(folder), pytest.raises(BusyError), held(folder):
        pass
    with held(folder):
        pass


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
    assert newest_checkpoint(tmp_path) == good
    told = ''.join(capsys.readouterr())
    assert 'epoch_2.pth' in told and 'epoch_3.pth' in told and 'epoch_1.pth' not in told
    good.unlink()
    with pytest.raises(CheckpointError, match='--resume .*epoch_3.pth.*epoch_2.pth'):
        newest_checkpoint(tmp_path)
