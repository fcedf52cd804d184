"""All weights or none."""

from __future__ import annotations

import logging

import pytest
import torch
from mmengine.logging import MMLogger
from torch import nn

from hgkd_mm.models.teachers.loading import load_strictly

SETTINGS = {'what': 'encoder', 'source': 'x.pth', 'hint': 'Check the config key arch.'}


def test_fills_a_network_built_without_memory() -> None:
    with torch.device('meta'):
        linear = nn.Linear(2, 3)
    weight = torch.arange(6.0).view(3, 2)
    load_strictly(linear, {'weight': weight.half(), 'bias': torch.ones(3)}, **SETTINGS)
    assert linear.weight.device.type == 'cpu' and linear.weight.dtype == torch.float32
    torch.testing.assert_close(linear(torch.ones(1, 2)), torch.tensor([[2.0, 6.0, 10.0]]))


def test_counts_of_batch_norm_stay_integers() -> None:
    norm = nn.BatchNorm2d(2)
    weights = {**norm.state_dict(), 'num_batches_tracked': torch.tensor(7)}
    load_strictly(norm, weights, **SETTINGS)
    assert norm.num_batches_tracked.dtype == torch.long and int(norm.num_batches_tracked) == 7


def test_names_and_counts_what_does_not_fit_and_loads_nothing() -> None:
    linear = nn.Linear(2, 3)
    before = linear.weight.detach().clone()
    weights = {'weight': torch.zeros(3, 4), 'head.a': torch.zeros(1), 'head.b': torch.zeros(1)}
    with pytest.raises(RuntimeError) as error:
        load_strictly(linear, weights, shapes={'table': (5, 2)}, **SETTINGS)
    assert str(error.value) == (
        'x.pth does not fit the encoder of the teacher: of 3 weights, 2 are missing (bias, '
        'table) and 1 have the wrong shape (weight is (3, 4), needed (3, 2)). 2 names of the '
        'file are unknown (head.a, head.b). A teacher with random weights would teach noise, so '
        'that this run does not start. Check the config key arch.'
    )
    torch.testing.assert_close(linear.weight.detach(), before, rtol=0, atol=0)


def test_long_lists_are_cut() -> None:
    network = nn.Sequential(*(nn.Linear(1, 1) for _ in range(6)))
    with pytest.raises(RuntimeError, match=r'12 are missing \(0.weight.*3.bias and 4 more\)'):
        load_strictly(network, {'x': torch.zeros(1)}, **SETTINGS)


def test_reports_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    linear = nn.Linear(2, 3)
    weights = {**linear.state_dict(), 'head.b': torch.zeros(1)}
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO):
            load_strictly(linear, weights, unused=['head.w'], **SETTINGS)
    finally:
        logger.removeHandler(caplog.handler)
    assert '2 of 2 weights loaded from x.pth, 0 missing, 2 of the file not used' in caplog.text
    assert '(head.b, head.w)' in caplog.text


@pytest.mark.parametrize(
    'name',
    [
        'blocks.0.ls1.gamma',
        'layers.0.attn.gamma1.weight',
        'layers.9.ln1.weight',
        'norm.weight',
        'norm_pre.weight',
        'pre_norm.weight',
        'register_tokens',
        'dist_token',
        'pos_embed',
    ],
)
def test_refuses_a_weight_of_another_network_by_name(name: str) -> None:
    linear = nn.Linear(2, 3)
    with pytest.raises(RuntimeError, match=f'place for 1 weights.*{name}.*config key arch'):
        load_strictly(linear, {**linear.state_dict(), name: torch.ones(2)}, **SETTINGS)


@pytest.mark.parametrize(
    'name',
    [
        'head.fc.weight',
        'head_dist.weight',
        'lm_head.weight',
        'fc_norm.weight',
        'ln2.weight',
        'pre_logits.fc.weight',
        'masked_embed',
        'attn_pool.q.weight',
        'fc.bias',
        'classifier.weight',
        'mask_token',
        'cls_pt_layers.0.attn.qkv.weight',
        'decoder_blocks.0.norm1.weight',
        'blocks.0.attn.relative_position_index',
        'bn.num_batches_tracked',
    ],
)
def test_takes_what_published_files_hold_beside_the_network(name: str) -> None:
    linear = nn.Linear(2, 3)
    load_strictly(linear, {**linear.state_dict(), name: torch.full((2, 2), torch.nan)}, **SETTINGS)


@pytest.mark.parametrize(
    ('name', 'value', 'sentence'),
    [
        ('0.weight', 0.0, r'1 matrices or kernels are one number throughout \(0.weight\)'),
        ('0.weight', 0.5, r'1 matrices or kernels are one number throughout \(0.weight\)'),
        ('1.weight', 0.0, r'1 matrices or kernels are one number throughout \(1.weight\)'),
        ('0.weight', torch.nan, r'1 weights are not finite \(0.weight\)'),
        ('0.bias', torch.inf, r'1 weights are not finite \(0.bias\)'),
        ('2.running_var', torch.nan, r'1 weights are not finite \(2.running_var\)'),
    ],
)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_refuses_weights_that_no_training_leaves(
    name: str, value: float, sentence: str, dtype: torch.dtype
) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 2), nn.BatchNorm2d(4))
    weights = {k: v.to(dtype) for k, v in network.state_dict().items()}
    weights[name] = torch.full_like(weights[name], value)
    with pytest.raises(RuntimeError, match=f'{sentence}.*config key checkpoint'):
        load_strictly(network, weights, **SETTINGS)


def test_norms_biases_tokens_and_tables_may_be_constant() -> None:
    network = nn.Sequential(nn.Linear(4, 2), nn.LayerNorm(2))
    network.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
    network.relative_position_bias_table = nn.Parameter(torch.zeros(9, 2))
    weights = {k: torch.zeros_like(v) for k, v in network.state_dict().items()}
    weights['0.weight'][0, 0] = 1.0
    load_strictly(network, weights, **SETTINGS)
    assert network[1].weight.sum() == 0 and network[0].weight.sum() == 1


def test_counters_of_batch_norms_may_be_absent() -> None:
    norm = nn.BatchNorm2d(2)
    weights = {name: value for name, value in norm.state_dict().items() if 'num_' not in name}
    load_strictly(norm, {**weights, 'weight': torch.tensor([2.0, 3.0])}, **SETTINGS)
    assert norm.weight.tolist() == [2.0, 3.0]
