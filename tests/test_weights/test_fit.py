"""What fits, and all weights or none."""

from __future__ import annotations

import logging

import pytest
import torch
from mmengine.logging import MMLogger
from torch import nn

from hgkd_mm.weights.fit import compare, counted, load_strictly, load_whole

SETTINGS = {'what': 'encoder', 'source': 'x.pth', 'hint': 'Check the config key arch.'}


def state(width: int = 2) -> dict[str, torch.Tensor]:
    return nn.Sequential(nn.Conv2d(1, width, 1), nn.BatchNorm2d(width)).state_dict()


def without_counters(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k: v for k, v in weights.items() if 'num_batches' not in k}


def test_names_shapes_and_values() -> None:
    own = state()
    found = own | {'0.weight': torch.zeros(3, 1, 1, 1), 'fc.bias': torch.zeros(1)}
    del found['1.bias']
    fit = compare(own, found)
    assert (fit.total, fit.loaded) == (6, 4)
    assert fit.missing == ('1.bias',)
    assert fit.other_shape == {'0.weight': '(3, 1, 1, 1), needed (2, 1, 1, 1)'}
    assert fit.unused == ('fc.bias',) and fit.lacking == ('1.bias', '0.weight')
    for part in ('4 of 6', '1 missing: 1.bias', '1 of another shape: 0.weight is (3', 'fc.bias'):
        assert part in fit.counts()
    values = found | {'1.weight': found['1.weight'] + 1}
    fit = compare(own, found, values)
    assert fit.changed == ('1.weight',) and fit.loaded == 3
    assert '1 with other values: 1.weight' in fit.counts()


def test_counters_are_no_weights_on_either_side() -> None:
    for own, found in ((state(), without_counters(state())), (without_counters(state()), state())):
        fit = compare(own, found)
        assert fit.total == 6 and fit.lacking == fit.unused == ()


def test_lists_are_cut() -> None:
    assert counted((), 'missing') == '0 missing'
    assert counted(list('abcdefgh'), 'missing') == '8 missing: a, b, c, d, e, f, g, h'
    assert counted(list('abcdefghij'), 'x') == '10 x: a, b, c, d, e, f, g, h and 2 more'


def test_a_whole_network_and_what_of_it_may_be_absent() -> None:
    network, found = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)), state()
    network[1].num_batches_tracked.fill_(3)
    fit = load_whole(network, without_counters(found), what='Another network')
    assert fit.loaded == 6 and network[1].num_batches_tracked == 3
    load_whole(network, found | {'1.num_batches_tracked': torch.tensor(7)}, what='Another network')
    assert network[1].num_batches_tracked == 7
    torch.testing.assert_close(network[0].weight.data, found['0.weight'], rtol=0, atol=0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found['0.weight'] += 1
    few = {name: value for name, value in found.items() if name != '1.bias'}
    wrong = [few, found | {'x': torch.zeros(1)}, found | {'1.bias': torch.zeros(3)}]
    for weights in wrong:
        with pytest.raises(ValueError, match='Another network'):
            load_whole(network, weights, what='Another network')
    torch.testing.assert_close(dict(network.state_dict()), before, rtol=0, atol=0)
    assert load_whole(network, few, what='Another network', absent=('1.',)).missing == ('1.bias',)


def test_fills_a_network_built_without_memory() -> None:
    with torch.device('meta'):
        linear = nn.Linear(2, 3)
    weight = torch.arange(6.0).view(3, 2)
    load_strictly(linear, {'weight': weight.half(), 'bias': torch.ones(3)}, **SETTINGS)
    assert linear.weight.device.type == 'cpu' and linear.weight.dtype == torch.float32
    torch.testing.assert_close(linear(torch.ones(1, 2)), torch.tensor([[2.0, 6.0, 10.0]]))


def test_counters_stay_integers_and_may_be_absent() -> None:
    norm = nn.BatchNorm2d(2)
    weights = {**norm.state_dict(), 'num_batches_tracked': torch.tensor(7)}
    load_strictly(norm, weights, **SETTINGS)
    assert norm.num_batches_tracked.dtype == torch.long and int(norm.num_batches_tracked) == 7
    weights = without_counters(weights) | {'weight': torch.tensor([2.0, 3.0])}
    load_strictly(norm, weights, **SETTINGS)
    assert norm.weight.tolist() == [2.0, 3.0]


def test_names_and_counts_what_does_not_fit_and_loads_nothing() -> None:
    linear = nn.Linear(2, 3)
    before = linear.weight.detach().clone()
    weights = {'weight': torch.zeros(3, 4), 'head.a': torch.zeros(1), 'head.b': torch.zeros(1)}
    with pytest.raises(RuntimeError) as error:
        load_strictly(linear, weights, **SETTINGS)
    for part in (
        *('x.pth', 'encoder', '0 of 2 weights', '1 missing: bias', 'head.a, head.b'),
        *('weight is (3, 4), needed (3, 2)', 'config key arch'),
    ):
        assert part in str(error.value)
    torch.testing.assert_close(linear.weight.detach(), before, rtol=0, atol=0)


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
    for part in ('2 of 2 weights', '0 missing', 'x.pth', '2 in the file not used: head.b, head.w'):
        assert part in caplog.text


@pytest.mark.parametrize(
    'name', ['blocks.0.ls1.gamma', 'layers.9.ln1.weight', 'norm_pre.weight', 'register_tokens']
)
def test_refuses_a_weight_of_another_network_by_name(name: str) -> None:
    linear = nn.Linear(2, 3)
    with pytest.raises(RuntimeError, match=f'1 weights.*{name}.*config key arch'):
        load_strictly(linear, {**linear.state_dict(), name: torch.ones(2)}, **SETTINGS)


@pytest.mark.parametrize(
    'name',
    [
        *('head.fc.weight', 'head_dist.weight', 'lm_head.weight', 'fc_norm.weight', 'ln2.weight'),
        *('pre_logits.fc.weight', 'masked_embed', 'attn_pool.q.weight', 'fc.bias', 'mask_token'),
        *('classifier.weight', 'cls_pt_layers.0.attn.qkv.weight', 'bn.num_batches_tracked'),
        *('decoder_blocks.0.norm1.weight', 'blocks.0.attn.relative_position_index'),
    ],
)
def test_takes_what_published_files_hold_beside_the_network(name: str) -> None:
    linear = nn.Linear(2, 3)
    load_strictly(linear, {**linear.state_dict(), name: torch.full((2, 2), torch.nan)}, **SETTINGS)


@pytest.mark.parametrize(
    ('name', 'value', 'reason'),
    [
        ('0.weight', 0.0, 'one number'),
        ('0.weight', 0.5, 'one number'),
        ('1.weight', 0.0, 'one number'),
        ('0.weight', torch.nan, 'not finite'),
        ('0.bias', torch.inf, 'not finite'),
        ('2.running_var', torch.nan, 'not finite'),
    ],
)
def test_refuses_weights_that_no_training_leaves(name: str, value: float, reason: str) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 2), nn.BatchNorm2d(4))
    weights = {k: v.half() for k, v in network.state_dict().items()}
    weights[name] = torch.full_like(weights[name], value)
    with pytest.raises(RuntimeError, match=f'1 [^:]*{reason}[^:]*: {name}.*config key checkpoint'):
        load_strictly(network, weights, **SETTINGS)


def test_norms_biases_tokens_and_tables_may_be_constant() -> None:
    network = nn.Sequential(nn.Linear(4, 2), nn.LayerNorm(2))
    network.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
    network.relative_position_bias_table = nn.Parameter(torch.zeros(9, 2))
    weights = {k: torch.zeros_like(v) for k, v in network.state_dict().items()}
    weights['0.weight'][0, 0] = 1.0
    load_strictly(network, weights, **SETTINGS)
    assert network[1].weight.sum() == 0 and network[0].weight.sum() == 1
