"""Networks of configs that may come from anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config
from torch import nn

from hgkd_mm.export.network import build_backbone, describe_backbone, parse_config_text


def test_reads_what_mmengine_dumps() -> None:
    values = dict(
        model=dict(
            type='HGKD',
            backbone=dict(type='ResNet', depth=18, out_indices=(0, 1, 2, 3), with_cp=False),
            data_preprocessor=dict(mean=[123.675, -1, 1e-05], std=None, text='it\'s \\ \n "a"'),
            heads=[dict(type='A', pairs=[(1, 2), ()]), dict()],
            by_number={1: dict(lr=0.1), 'a b': 2},
        ),
        resume=True,
    )
    text = Config(values).pretty_text
    assert parse_config_text(text) == values


def test_what_is_not_literal_is_left_out_and_not_run(tmp_path: Path) -> None:
    victim = tmp_path / 'was_here'
    text = f"""
import os
open({str(victim)!r}, 'w').close()
model = dict(type='A', backbone=dict(type='B', depth=__import__('os').system('touch {victim}')))
called = open({str(victim)!r}, 'w')
added = 1 + 1
spread = dict(**dict(a=1))
first = second = 3
head = dict(type='C', width=-4)
"""
    assert parse_config_text(text) == {'head': {'type': 'C', 'width': -4}}
    assert not victim.exists()


@pytest.mark.parametrize(
    'text', ['model = dict(', 'model\0', '(' * 100_000], ids=['cut', 'null', 'deep']
)
def test_no_python_is_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match='Python'):
        parse_config_text(text)


def test_one_form_for_every_way_to_write_it() -> None:
    written = dict(
        type='mmpretrain.ResNet',
        depth=18,
        base_channels=8,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        init_cfg=dict(type='Pretrained', checkpoint='a.pth'),
    )
    described = describe_backbone(written, trusted=False)
    norm = dict(type='BN', requires_grad=True)
    assert described == dict(type='ResNet', depth=18, base_channels=8, norm_cfg=norm)
    assert written['init_cfg']['checkpoint'] == 'a.pth'
    lazy = dict(type='mmpretrain.models.backbones.resnet.ResNet', depth=18)
    assert describe_backbone(lazy, trusted=False) == dict(type='ResNet', depth=18)
    network = build_backbone(described)
    assert type(network.layer1[0].bn1) is nn.BatchNorm2d
    assert not any(module.training for module in network.modules())


@pytest.mark.parametrize('name', ['os.system', 'builtins.exec', 'ImageClassifier', 'SGD', 7, None])
def test_names_of_anything_but_networks_are_refused(name: object) -> None:
    resnet = dict(type='ResNet', depth=18)
    nested = dict(**resnet, norm_cfg=[dict(a=dict(type=name))])
    for config in (dict(type=name), nested, dict(**resnet, _scope_=name)):
        with pytest.raises(ValueError, match=rf'{name!r}.*--config'):
            describe_backbone(config, trusted=False)
    # as your own networks are, with your own config
    assert describe_backbone(dict(type='mine.Net'), trusted=True) == dict(type='mine.Net')


def test_wrong_settings_are_a_sentence() -> None:
    with pytest.raises(ValueError, match="'depth': 19.*--config"):
        build_backbone(dict(type='ResNet', depth=19))
