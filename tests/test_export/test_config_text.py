"""Configs in checkpoints are read as data, never run."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

from hgkd_mm.export.config_text import parse_config_text


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


@pytest.mark.parametrize('text', ['model = dict(', 'model\0', '(' * 100_000])
def test_no_python_is_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match='the config in it is no Python'):
        parse_config_text(text)
