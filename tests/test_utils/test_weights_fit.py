from __future__ import annotations

import torch
from torch import nn

from hgkd_mm.utils.weights_fit import compare, fitting, listed, shapes_of


def network(width: int = 2) -> dict[str, torch.Tensor]:
    return nn.Sequential(nn.Conv2d(1, width, 1), nn.BatchNorm2d(width)).state_dict()


def test_names_and_shapes() -> None:
    found = network() | {'0.weight': torch.zeros(3, 1, 1, 1), 'fc.bias': torch.zeros(1)}
    del found['1.bias']
    fit = compare(network(), found)
    assert (fit.total, fit.loaded) == (6, 4)
    assert fit.missing == ('1.bias',) and fit.other_shape == ('0.weight',)
    assert fit.unused == ('fc.bias',) and fit.lacking == ('1.bias', '0.weight')
    assert fit.counts() == (
        '4 of 6 weights (1 missing: 1.bias, 1 of another shape: 0.weight; 1 in the file not used: '
        'fc.bias)'
    )
    assert shapes_of(fit.other_shape, network(), found) == (
        '0.weight is (3, 1, 1, 1), needed (2, 1, 1, 1)',
    )


def test_counters_are_no_weights_on_either_side() -> None:
    without = {k: v for k, v in network().items() if 'num_batches' not in k}
    for own, found in ((network(), without), (without, network())):
        fit = compare(own, found)
        assert fit.total == 6 and fit.lacking == fit.unused == ()


def test_counters_are_loaded_where_there_are_any() -> None:
    found = network() | {'1.num_batches_tracked': torch.tensor(7), 'x': torch.zeros(1)}
    taken = fitting(network(), found)
    assert set(taken) == set(network()) and taken['1.num_batches_tracked'] == 7
    assert '0.weight' not in fitting(network(3), found)


def test_lists_are_cut() -> None:
    assert listed(()) == listed([], 'any {}') == ''
    assert listed(list('abcdefgh')) == ' (a, b, c, d, e, f, g, h)'
    assert listed(list('abcdefghij'), ': {}') == ': a, b, c, d, e, f, g, h and 2 more'
    assert listed(['{}']) == ' ({})'
