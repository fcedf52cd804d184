from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from hgkd_mm.inspect.fitted_weights import load_backbone, load_model, read_tensors


def network(width: int = 3) -> nn.Sequential:
    return nn.Sequential(OrderedDict(stem=nn.Linear(2, width), body=nn.Linear(width, 1)))


def prefixed(module: nn.Module) -> dict:
    return {f'backbone.{name}': value for name, value in module.state_dict().items()}


def same(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_a_whole_model() -> None:
    trained, model = network(), network()
    fit = load_model(model, trained.state_dict(), source='x.pth')
    assert same(model, trained)
    assert fit.counts() == (
        '4 of 4 weights (0 missing, 0 of another shape; 0 in the file not used)'
    )


def test_what_does_not_fit_is_refused_and_nothing_is_loaded() -> None:
    model, before = network(), None
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights = network(5).state_dict()
    del weights['body.bias']
    weights['head.bias'] = torch.zeros(1)
    message = (
        r'x.pth was not made with this config.*it fills 0 of 4 weights \(1 missing: body.bias, '
        r'3 of another shape: .*; 1 in the file not used: head.bias\)'
    )
    with pytest.raises(ValueError, match=message):
        load_model(model, weights, source='x.pth')
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_backbone_of_a_training_checkpoint() -> None:
    trained, backbone = network(), network()
    weights = prefixed(trained) | {'heads.feat.weight': torch.zeros(1)}
    fit = load_backbone(backbone, weights, source='x.pth')
    assert same(backbone, trained) and fit.loaded == 4
    assert fit.unused == ('heads.feat.weight',)


def test_a_bare_backbone_with_its_classifier() -> None:
    trained, backbone = network(), network()
    fit = load_backbone(
        backbone, trained.state_dict() | {'fc.weight': torch.zeros(1)}, source='x.pth'
    )
    assert same(backbone, trained) and fit.unused == ('fc.weight',)


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_a_deeper_network_is_not_taken_for_a_shallower_one(prefix: str) -> None:
    weights = {f'{prefix}{name}': value for name, value in network().state_dict().items()}
    weights[f'{prefix}body.1.weight'] = torch.zeros(1)
    message = r'another network.*4 of 4 .*; 1 in the file not used: body.1.weight\)'
    with pytest.raises(ValueError, match=message):
        load_backbone(network(), weights, source='x.pth')


def test_reading(tmp_path: Path) -> None:
    file = tmp_path / 'x.pth'
    torch.save(dict(state_dict=network().state_dict(), meta=dict(epoch=3)), file)
    assert set(read_tensors(file)) == set(network().state_dict())
    with pytest.raises(FileNotFoundError, match='no checkpoint at .*argument CHECKPOINT'):
        read_tensors(tmp_path / 'y.pth')
    file.write_bytes(b'junk')
    with pytest.raises(RuntimeError, match='--trust-checkpoint|not a readable weight file'):
        read_tensors(file)
