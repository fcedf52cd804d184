"""Queries, keys and values of three kinds of attention, which must give that attention's output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.teachers import ARCH, SIZES, beit, mae_parts, prefixed, randomised, save
from mmpretrain.models import MultiheadAttention
from mmpretrain.models.backbones import BEiTViT, ResNet, SwinTransformer, VisionTransformer
from timm.models import VisionTransformer as TimmViT
from torch import Tensor, nn

from hgkd_mm.models import MIMTeacher
from hgkd_mm.models.qkv import QKV, attention_blocks, choose_blocks, read_qkv

HEADS, DIM = ARCH['num_heads'], ARCH['embed_dims'] // ARCH['num_heads']


def vit() -> nn.Module:
    return randomised(VisionTransformer(**SIZES))


def timm_vit() -> nn.Module:
    sizes = dict(img_size=64, embed_dim=24, depth=3, num_heads=2, num_classes=0)
    return randomised(TimmViT(**sizes, qk_norm=True, reg_tokens=2))


def plain_beit() -> nn.Module:
    """One with an ordinary bias of q, k and v, and no positions in its attention."""
    network = BEiTViT(**SIZES, bias=True, use_rel_pos_bias=False, use_abs_pos_emb=True)
    return randomised(network, 5)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    'mmpretrain': vit,
    'beit': lambda: beit(shared=False),
    'beit-shared': lambda: beit(shared=True),
    'beit-plain': plain_beit,
    'timm': timm_vit,
}
PREFIX = dict.fromkeys(NETWORKS, 1) | {'timm': 3}


def images(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(0)).double()


def run(network: nn.Module) -> object:
    # pre-training networks of mmpretrain want to be told that nothing is masked
    arguments = {'mask': None} if 'Pretrain' in type(network).__name__ else {}
    return network(images(), **arguments)


def recomputed(attention: nn.Module, read: QKV) -> Tensor:
    """The layer's output from what was read, step by step."""
    logits = torch.einsum('bhqd,bhkd->bhqk', read.q, read.k) / DIM**0.5
    if read.bias is not None:
        logits = logits + read.bias
    weights = logits.exp() / logits.exp().sum(-1, keepdim=True)
    mixed = torch.einsum('bhqk,bhkd->bqhd', weights, read.v).flatten(2)
    return mixed @ attention.proj.weight.T + attention.proj.bias


def hooks_of(network: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


@pytest.mark.parametrize('name', NETWORKS)
def test_what_is_read_gives_the_output_of_the_attention(name: str) -> None:
    network = NETWORKS[name]().double()
    blocks = attention_blocks(network)
    assert len(blocks) == 3
    outputs: dict[int, Tensor] = {}
    for index, block in enumerate(blocks):
        block.attn.register_forward_hook(
            lambda _module, _inputs, output, index=index: outputs.update({index: output})
        )
    alone = run(network)
    before = hooks_of(network)
    with read_qkv(dict(enumerate(blocks))) as found:
        assert not found
        watched = run(network)
    assert hooks_of(network) == before
    tokens = PREFIX[name] + 16
    for index, block in enumerate(blocks):
        read = found[index]
        assert read.q.shape == read.k.shape == read.v.shape == (2, HEADS, tokens, DIM)
        torch.testing.assert_close(recomputed(block.attn, read), outputs[index])
        rows = read.attention().sum(-1)
        torch.testing.assert_close(rows, torch.ones_like(rows))
    assert (found[0].bias is not None) == (name in ('beit', 'beit-shared'))
    torch.testing.assert_close(alone, watched, rtol=0, atol=0)


@pytest.mark.parametrize('name', NETWORKS)
def test_gradients_flow_to_the_weights_before(name: str) -> None:
    network = NETWORKS[name]().double()
    with read_qkv(choose_blocks(attention_blocks(network), [1], key='layers')) as found:
        run(network)
    read = found[1]
    (read.attention().square().sum() + read.v.square().sum()).backward()
    blocks = attention_blocks(network)
    for weight in (blocks[0].attn.qkv.weight, blocks[1].attn.qkv.weight):
        assert weight.grad is not None and weight.grad.abs().sum() > 0
    if name == 'beit':
        assert blocks[1].attn.relative_position_bias_table.grad.abs().sum() > 0
    assert blocks[2].attn.qkv.weight.grad is None


def test_other_scales_are_in_the_queries() -> None:
    holder = nn.Module()
    holder.attn = MultiheadAttention(24, 2, qk_scale=1.0)
    network = beit(shared=False)
    network.layers[0].attn.scale = 0.7
    for block in (holder, network.layers[0]):
        block = randomised(block, 7).double()
        block.attn.qkv.weight.data *= 0.3  # softmaxes that are not one-hot
        tokens = torch.randn(2, 17, 24, generator=torch.Generator().manual_seed(1)).double()
        with read_qkv({0: block}) as found:
            output = block.attn(tokens)
        torch.testing.assert_close(recomputed(block.attn, found[0]), output)


def test_hooks_are_gone_after_an_error() -> None:
    network = vit().double()
    with pytest.raises(RuntimeError, match='stop'), read_qkv(dict(enumerate(network.layers))):
        run(network)
        raise RuntimeError('stop')
    assert hooks_of(network) == 0
    unreadable = {0: network.layers[0], 1: network.ln1}
    message = r'Block 1 is a .*Norm whose attn is NoneType'
    with pytest.raises(TypeError, match=message), read_qkv(unreadable):
        pass
    assert hooks_of(network) == 0


def test_blocks_of_a_teacher_are_those_that_it_runs(tmp_path: Path) -> None:
    encoder, decoder = mae_parts()
    file = save(prefixed('backbone.', encoder) | prefixed('neck.', decoder), tmp_path / 'mae.pth')
    teacher = MIMTeacher(checkpoint=file, **SIZES, layer=1)
    blocks = choose_blocks(teacher.blocks(), [-1], key='teacher_layers')
    assert blocks == {1: teacher.vit.layers[1]}
    with read_qkv(blocks) as found:
        teacher(images().float())
    assert found[1].q.shape == (2, HEADS, 17, DIM) and not found[1].q.requires_grad


def test_refusals() -> None:
    with pytest.raises(TypeError, match=r'ResNet has no global attention .*VisionTransformer'):
        attention_blocks(ResNet(18))
    with pytest.raises(TypeError, match=r'SwinTransformer .*\(its attention is ShiftWindowMSA\)'):
        attention_blocks(SwinTransformer('tiny'))
    with pytest.raises(ValueError, match=r'head.layers=\[0, 3\] names block 3, .* from -3 to 2'):
        choose_blocks(vit().layers, [0, 3], key='head.layers')
