"""Which packages engine='spconv' accepts, and when it says so; needs none of them."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmpretrain.registry import MODELS

import hgkd_mm.models  # noqa: F401  registers
from hgkd_mm.sparse import CellMask, find_engine, sparsify
from hgkd_mm.sparse.spconv_wheel import check_wheels, installed_wheels

ROOT = Path(__file__).parents[2]
INSTALL = r'pip install spconv-cu120==2\.3\.6 cumm-cu120==0\.4\.11'


@pytest.mark.parametrize(
    'names', [['cumm-cu120', 'spconv-cu120'], ['spconv-cu118'], ['cumm', 'spconv-cu120']]
)
def test_wheels_made_for_cuda_are_accepted(names: list[str]) -> None:
    check_wheels(names)


@pytest.mark.parametrize('names', [[], ['cumm-cu120'], ['spconv-nightly']])
def test_a_missing_package_is_named_with_the_way_to_get_it(names: list[str]) -> None:
    words = rf"spconv-cu120, which is not installed.*{INSTALL}.*engine='tiles'.*model\.engine"
    with pytest.raises(ImportError, match=words):
        check_wheels(names)


@pytest.mark.parametrize('names', [['cumm', 'spconv'], ['cumm-cu120', 'spconv', 'spconv-cu120']])
def test_the_wheel_for_cpus_is_refused_by_name(names: list[str]) -> None:
    remove = ' '.join(names)
    words = rf"package 'spconv'.*wrong results.*uninstall -y {remove}; {INSTALL}.*engine='tiles'"
    with pytest.raises(ImportError, match=words):
        check_wheels(names)


def test_wheels_are_found_however_their_name_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ('spconv_cu120', 'Cumm.cu120', 'spconvert', 'torch', None)
    found = [SimpleNamespace(name=name) for name in names]
    monkeypatch.setattr(metadata, 'distributions', lambda: found)
    assert installed_wheels() == ['cumm-cu120', 'spconv-cu120']


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names that the engine finds, in place of those of this environment."""
    names: list[str] = []
    monkeypatch.setattr('hgkd_mm.sparse.spconv_wheel.installed_wheels', lambda: names)
    monkeypatch.delitem(sys.modules, 'hgkd_mm.sparse.spconv_engine', raising=False)
    return names


@pytest.mark.parametrize(
    ('names', 'words'), [([], 'not installed'), (['spconv'], "package 'spconv'.*wrong results")]
)
def test_it_is_said_before_any_work(installed: list[str], names: list[str], words: str) -> None:
    installed += names
    with pytest.raises(ImportError, match=words):
        find_engine('spconv')
    mask = CellMask.full(batch=1, grid=(1, 1))
    with pytest.raises(ImportError, match=words):
        sparsify(torch.zeros(1, 3, 4, 4), mask, engine='spconv')
    config = dict(
        type='HGKD',
        backbone=dict(type='ResNet', depth=18, out_indices=(0, 1, 2, 3)),
        neck=dict(type='UNetDecoder', in_channels=(64, 128, 256, 512), width=64),
        heads=dict(pixel=dict(type='PixelReconstructionHead', in_channels=32, out_stride=16)),
        engine='spconv',
    )
    with pytest.raises(ImportError, match=words):
        MODELS.build(config)


def test_an_unknown_engine_is_told_of_all_of_them() -> None:
    with pytest.raises(ValueError, match="'tile'.*'tiles', 'masked_dense', 'spconv'"):
        find_engine('tile')


def test_spconv_is_imported_only_when_asked_for() -> None:
    code = "import sys, hgkd_mm.models, hgkd_mm.sparse; sys.exit('spconv' in sys.modules)"
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=False).returncode == 0
