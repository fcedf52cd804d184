from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hgkd_mm.utils.files import is_remote, write_whole


def test_a_file_and_its_folder(tmp_path: Path) -> None:
    path = tmp_path / 'new' / 'a.bin'
    write_whole(path, b'old')
    write_whole(path, b'new')
    assert path.read_bytes() == b'new' and list(path.parent.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


# a small file may do without waiting for the disk
@pytest.mark.parametrize(('call', 'synced'), [('os.fsync', True), ('os.replace', False)])
def test_the_old_file_stays_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, synced: bool
) -> None:
    path = tmp_path / 'b.pth'
    write_whole(path, b'old')
    if not synced:
        monkeypatch.setattr('os.fsync', None)

    def full(*_: object) -> None:
        raise OSError('No space left on device')

    monkeypatch.setattr(call, full)
    with pytest.raises(OSError, match='No space left'):
        write_whole(path, b'new', synced=synced)
    assert path.read_bytes() == b'old' and [p.name for p in tmp_path.iterdir()] == ['b.pth']


def test_addresses() -> None:
    assert is_remote('https://a/b.pth') and is_remote('torchvision://resnet18')
    assert not is_remote('/a/b.pth') and not is_remote('C:/b.pth')


def test_scenes_are_made_without_torch() -> None:
    code = "import sys, hgkd_mm.scenes; print({'torch', 'mmengine'} & set(sys.modules))"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout == 'set()\n'
