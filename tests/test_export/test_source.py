"""Reading checkpoints of runs: what is found, what is refused, and that nothing is run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from helpers.exports import MEAN, config_text, random_backbone, write_checkpoint
from helpers.pickles import MakesFolder
from mmengine.logging import MessageHub
from safetensors.torch import save_file

from hgkd_mm import __version__
from hgkd_mm.export import read_pretrained

TINY = dict(type='ResNet', depth=18, stem_channels=4, base_channels=4)


def test_weights_config_and_where_they_come_from(tmp_path: Path) -> None:
    network = random_backbone(TINY)
    path = write_checkpoint(tmp_path / 'epoch_4.pth', network, TINY)
    found = read_pretrained(path)
    assert found.config == TINY
    assert found.weights.keys() == network.state_dict().keys()
    torch.testing.assert_close(dict(found.weights), dict(network.state_dict()), rtol=0, atol=0)
    assert found.metadata == {
        'hgkd_mm_version': __version__,
        'method': 'HGKD',
        'source': 'epoch_4.pth',
        'source_sha256': hashlib.sha256(path.read_bytes()).hexdigest(),
        'epoch': '4',
        'iteration': '752',
        'experiment': 'hgkd_tiny_2026',
        'backbone': json.dumps(dict(sorted(TINY.items()))),
        'images': json.dumps(dict(mean=MEAN, to_rgb=True)),
        'config': config_text(TINY),
    }


def test_checkpoints_of_real_runs_need_no_trust(tmp_path: Path) -> None:
    hub = MessageHub.get_instance('test_source')
    hub.update_scalar('train/loss', 0.5)
    network = random_backbone(TINY)
    path = write_checkpoint(tmp_path / 'e.pth', network, TINY, message_hub=hub.state_dict())
    assert read_pretrained(path).config == TINY


def test_code_in_the_file_does_not_run(tmp_path: Path) -> None:
    made = tmp_path / 'made'
    meta = dict(seed=MakesFolder(made))
    path = write_checkpoint(tmp_path / 'more.pth', random_backbone(TINY), TINY, meta=meta)
    with pytest.raises(RuntimeError, match='--trust-checkpoint'):
        read_pretrained(path)
    assert not made.exists()


def test_code_in_the_config_does_not_run(tmp_path: Path) -> None:
    made = tmp_path / 'made'
    texts = [
        f"import os\nos.mkdir('{made}')\nmodel = dict(backbone=dict(type='ResNet'))",
        f"model = dict(backbone=dict(type='os.mkdir', path='{made}'))",
    ]
    for number, text in enumerate(texts):
        path = tmp_path / f'{number}.pth'
        write_checkpoint(path, random_backbone(TINY), TINY, meta=dict(cfg=text))
    assert read_pretrained(tmp_path / '0.pth').config == dict(type='ResNet')
    with pytest.raises(ValueError, match="names 'os.mkdir'"):
        read_pretrained(tmp_path / '1.pth')
    assert not made.exists()


def test_a_config_file_instead_of_the_text(tmp_path: Path) -> None:
    network = random_backbone(TINY)
    weights = {f'backbone.{name}': value for name, value in network.state_dict().items()}
    save_file(weights, tmp_path / 'w.safetensors')
    with pytest.raises(ValueError, match=r'no model.backbone.*--config'):
        read_pretrained(tmp_path / 'w.safetensors')
    config = tmp_path / 'mine.py'
    config.write_text(f"model = dict(type='SparK', backbone={TINY!r})")
    found = read_pretrained(tmp_path / 'w.safetensors', config=config)
    assert (found.config, found.metadata['method']) == (TINY, 'SparK')
    assert 'epoch' not in found.metadata and "'SparK'" in found.metadata['config']
    with pytest.raises(FileNotFoundError, match='gone.py'):
        read_pretrained(tmp_path / 'w.safetensors', config=tmp_path / 'gone.py')


def test_files_without_a_backbone_are_refused(tmp_path: Path) -> None:
    torch.save({'state_dict': {'head.fc.weight': torch.zeros(2)}}, tmp_path / 'head.pth')
    with pytest.raises(ValueError, match=r"no weights under 'backbone\.'.*it holds head \(1\)"):
        read_pretrained(tmp_path / 'head.pth')
    with pytest.raises(FileNotFoundError, match=r'no checkpoint at .*gone.pth \(argument CKPT'):
        read_pretrained(tmp_path / 'gone.pth')
    (tmp_path / 'cut.pth').write_bytes(b'PK\3\4')
    with pytest.raises(RuntimeError, match='cut.pth is not a readable weight file'):
        read_pretrained(tmp_path / 'cut.pth')


@pytest.mark.parametrize(
    ('text', 'sentence'),
    [
        ('model = dict(', 'is no Python'),
        ('work_dir = 1', 'has no model.backbone'),
        ("model = dict(type='A', backbone='B')", 'has no model.backbone'),
    ],
)
def test_configs_without_a_backbone_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    path = write_checkpoint(tmp_path / 'e.pth', random_backbone(TINY), TINY, meta=dict(cfg=text))
    with pytest.raises(ValueError, match=f'{sentence}.*--config'):
        read_pretrained(path)
