from __future__ import annotations

import pytest
import torch
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from hgkd_mm.engine import optim_wrapper
from hgkd_mm.engine.optim_wrapper import BF16OptimWrapper


def make_wrapper(parameter: nn.Parameter) -> BF16OptimWrapper:
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    return OPTIM_WRAPPERS.build(dict(type='BF16OptimWrapper', optimizer=optimizer))


def test_forward_is_bfloat16_and_weights_are_fp32() -> None:
    model = nn.Linear(2, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    wrapper = make_wrapper(model.weight)
    # 1 + 2**-10 is not a bfloat16: it rounds to 1, so the output shows what precision was used
    inputs = torch.tensor([[1 + 2**-10, 0.0]])
    with wrapper.optim_context(model):
        output = model(inputs)
    assert output.dtype == torch.bfloat16
    assert output.item() == 1.0

    wrapper.update_params(output.float().sum())
    assert model.weight.dtype == torch.float32
    torch.testing.assert_close(model.weight, torch.tensor([[0.0, 1.0]]))
    assert model(inputs).dtype == torch.float32


def test_loss_is_not_scaled_and_state_is_the_optimizer_s() -> None:
    parameter = nn.Parameter(torch.tensor([1.0]))
    wrapper = make_wrapper(parameter)
    wrapper.backward(3 * parameter.sum())
    assert parameter.grad.item() == 3.0
    assert 'loss_scaler' not in wrapper.state_dict()


@pytest.mark.parametrize(('version', 'flash'), [('2.1.2', False), ('2.11.0+cpu', True)])
def test_attention_avoids_a_kernel_that_damages_memory(
    version: str, flash: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, '__version__', version)
    monkeypatch.setattr(optim_wrapper, 'get_device', lambda: 'cpu')
    layer = nn.MultiheadAttention(4, 1)
    wrapper = make_wrapper(layer.in_proj_weight)
    with wrapper.optim_context(layer):
        assert torch.backends.cuda.flash_sdp_enabled() is flash
    assert torch.backends.cuda.flash_sdp_enabled()
