"""Each test starts Python: what is tried happens once a process, at the first import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
# All of transformers 5 that mmpretrain 1.3 gets to see before it stops: the name
# transformers.pytorch_utils.find_pruneable_heads_and_indices is gone.
TRANSFORMERS = {
    '__init__.py': """
from .models.auto.auto_factory import _BaseAutoModelClass

__version__ = '5.17.0'
for _name in (
    'AutoTokenizer BartTokenizer BasicTokenizer BertTokenizer BertTokenizerFast LlamaTokenizer '
    'PreTrainedModel WordpieceTokenizer'
).split():
    globals()[_name] = type(_name, (), {})


class AutoConfig:
    from_pretrained = classmethod(lambda cls: None)


class AutoModelForCausalLM(_BaseAutoModelClass):
    config_class = AutoConfig
    from_pretrained = from_config = classmethod(lambda cls: None)
""",
    'activations.py': 'ACT2FN = {}',
    'pytorch_utils.py': 'def apply_chunking_to_forward(): pass',
    'modeling_outputs.py': (
        'BaseModelOutputWithPastAndCrossAttentions = CausalLMOutputWithCrossAttentions = object\n'
        'BaseModelOutputWithPoolingAndCrossAttentions = object\n'
    ),
    'modeling_utils.py': 'PreTrainedModel = object',
    'models/bert/configuration_bert.py': 'BertConfig = object',
    'models/auto/auto_factory.py': 'class _BaseAutoModelClass: pass',
}


def python(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    folders = [str(ROOT), *([str(path)] if path else [])]
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def transformers(tmp_path: Path) -> Path:
    for name, text in TRANSFORMERS.items():
        path = tmp_path / 'transformers' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    info = tmp_path / 'transformers-5.17.0.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: transformers\nVersion: 5.17.0\n')
    return tmp_path


def test_mmpretrain_alone_stops_at_transformers_5(transformers: Path) -> None:
    done = python('-c', 'import mmpretrain.models', path=transformers)
    assert done.returncode == 1
    # or the fake is none, and the next tests say nothing
    assert 'NoneType takes no arguments' in done.stderr


def test_hgkd_mm_first_and_transformers_stays_usable(transformers: Path) -> None:
    code = (
        'import transformers, hgkd_mm, mmseg.datasets, mmseg.models\n'
        'from mmengine.registry import MODELS\n'
        "print(MODELS.build(dict(type='mmpretrain.ResNet', depth=18)).depth)\n"
        'import transformers.activations, timm\n'
        'print(transformers.__version__)\n'
    )
    done = python('-c', code, path=transformers)
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout.splitlines() == ['18', '5.17.0']


def test_other_warnings_and_prints_of_these_packages_are_kept(tmp_path: Path) -> None:
    package = tmp_path / 'mmdet'
    for name in ('evaluation/metrics', 'datasets'):
        (package / name).mkdir(parents=True)
    for name in ('', 'evaluation', 'evaluation/metrics'):
        (package / name / '__init__.py').touch()
    (package / 'evaluation/metrics/faster_coco_metric.py').write_text(
        "import warnings\nwarnings.warn('faster_coco_eval is not installed')\n"
        "warnings.warn('something else')\n"
    )
    (package / 'datasets/__init__.py').write_text(
        "pattern = '\\d'\n"
        "from mmengine.logging import print_log\nprint_log('Could not import OneDL. Skipping.')\n"
        "print_log('Another message')\n"
    )
    code = (
        'import sys, hgkd_mm\n'
        f'sys.path.insert(0, {str(tmp_path)!r})\n'
        'import mmdet.datasets, mmdet.evaluation.metrics.faster_coco_metric\n'
        'from mmengine.logging import print_log\n'
        "print_log('Could not import OneDL, said later')\n"
    )
    done = python('-W', 'default', '-c', code)
    assert done.returncode == 0, done.stderr
    assert 'something else' in done.stderr
    assert 'faster_coco_eval' not in done.stderr
    assert 'escape' not in done.stderr
    assert done.stdout.splitlines() == ['Another message', 'Could not import OneDL, said later']


def test_mmdets_models_without_ops_name_the_command(tmp_path: Path) -> None:
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv/__init__.py').touch()
    (tmp_path / 'mmdet').mkdir()
    (tmp_path / 'mmdet/__init__.py').touch()
    (tmp_path / 'mmdet/models.py').write_text('print("imported")')
    code = f'import sys; sys.path.insert(0, {str(tmp_path)!r}); import hgkd_mm, mmdet.models'
    done = python('-c', code)
    assert done.returncode == 1
    assert "ModuleNotFoundError: MMDetection needs mmcv's compiled ops" in done.stderr
    (tmp_path / 'mmcv/_ext.abi3.so').touch()
    assert python('-c', code).stdout == 'imported\n'
