from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hgkd_mm.utils import mmcv_ops


@pytest.mark.parametrize('compiled', [True, False])
def test_the_compiled_module_tells_and_mmcv_is_not_imported(
    compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv/__init__.py').write_text('raise RuntimeError("mmcv was imported")')
    if compiled:
        (tmp_path / 'mmcv/_ext.abi3.so').touch()
    monkeypatch.delitem(sys.modules, 'mmcv', raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert mmcv_ops.has_ops() is compiled


@pytest.mark.parametrize(
    ('installed', 'command'),
    [
        ('onedl-mmcv', 'bash tools/setup_env.sh --ops'),
        ('mmcv-lite', 'bash tools/setup_env.sh --stack openmmlab --ops'),
    ],
)
def test_missing_ops_are_a_sentence_with_the_command(
    installed: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mmcv_ops, 'installed_versions', lambda: {installed: '2'})
    monkeypatch.setattr(mmcv_ops, 'has_ops', lambda: True)
    mmcv_ops.need_ops('A detector')
    monkeypatch.setattr(mmcv_ops, 'has_ops', lambda: False)
    with pytest.raises(mmcv_ops.MissingOpsError) as error:
        mmcv_ops.need_ops('A detector')
    assert str(error.value).startswith("A detector needs mmcv's compiled ops, ")
    assert f'`{command}` compiles them' in str(error.value)
