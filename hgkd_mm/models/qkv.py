"""Attention of vision transformers: queries, keys and values, read by hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from mmpretrain.models.backbones.beit import BEiTAttention
from mmpretrain.models.utils import MultiheadAttention
from timm.models.vision_transformer import Attention as TimmAttention
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .outputs import QKV

Keep = Callable[[QKV], None]


def attention_blocks(vit: nn.Module) -> list[nn.Module]:
    """The transformer blocks of a network of mmpretrain or timm, in order.

    Raises:
        TypeError: it has none with global attention that can be read.
    """
    blocks = [block for block in vit.modules() if type(_attention(block)) in _HOOKS]
    if not blocks:
        others = {type(_attention(module)).__name__ for module in vit.modules()} - {'NoneType'}
        seen = f' (its attention is {", ".join(sorted(others))})' if others else ''
        raise TypeError(
            f'{type(vit).__name__} has no global attention whose queries, keys and values can be '
            f'read{seen}. Take a network of blocks with {_readable()}: VisionTransformer or '
            "BEiTViT of mmpretrain (config key backbone.type), or timm's VisionTransformer."
        )
    return blocks


def layers_from_zero(layers: Sequence[int], count: int, *, key: str) -> tuple[int, ...]:
    """Indices of blocks, counted from 0.

    Args:
        layers: indices from 0, or from -1 backwards.
        count: blocks that run.
        key: the config key or flag, for messages.

    Raises:
        ValueError: an index is out of range.
    """
    for layer in layers:
        if not -count <= layer < count:
            raise ValueError(
                f'{key}={list(layers)} names block {layer}, but {count} blocks run: choose from '
                f'{-count} to {count - 1}.'
            )
    return tuple(layer % count for layer in layers)


def choose_blocks(
    blocks: Sequence[nn.Module], layers: Sequence[int], *, key: str
) -> dict[int, nn.Module]:
    """Index from 0 to block, for `read_qkv`; arguments as of `layers_from_zero`."""
    return {layer: blocks[layer] for layer in layers_from_zero(layers, len(blocks), key=key)}


@contextmanager
def read_qkv(blocks: Mapping[int, nn.Module]) -> Iterator[dict[int, QKV]]:
    """Reads queries, keys and values of blocks that run inside a ``with``.

    The network computes as ever, and the hooks are gone afterwards, also after an error.
    Gradients flow through what is read: the output of the ``qkv`` layer of mmpretrain's
    ``MultiheadAttention`` and timm's ``Attention``. BEiT's attention never calls that layer, so
    its queries, keys and values are computed a second time. Masks that are passed to timm's
    forward are not read.

    Args:
        blocks: any index to a block with a readable ``attn``, see `choose_blocks`.

    Yields:
        Index to `QKV`. Filled as blocks run, so empty before; of a block that runs repeatedly
        the last time counts.

    Raises:
        TypeError: a block's attention cannot be read.
    """
    found: dict[int, QKV] = {}
    with ExitStack() as hooks:
        for index, block in blocks.items():
            attention = _attention(block)
            if type(attention) not in _HOOKS:
                raise TypeError(
                    f'Block {index} is a {type(block).__name__} whose attn is '
                    f'{type(attention).__name__}; {_readable()} can be read.'
                )
            handle = _HOOKS[type(attention)](attention, partial(found.__setitem__, index))
            hooks.callback(handle.remove)
        yield found


def _attention(block: nn.Module) -> nn.Module | None:
    return block._modules.get('attn')


def _readable() -> str:
    return ', '.join(kind.__name__ for kind in _HOOKS)


def _hook_mmpretrain(attention: MultiheadAttention, keep: Keep) -> RemovableHandle:
    def hook(_layer: nn.Module, _inputs: tuple, output: Tensor) -> None:
        q, k, v = _split(output, attention.num_heads)
        # Given a qk_scale, it divides by 1 / sqrt(d) where it would multiply.
        if isinstance(attention.scaled_dot_product_attention, partial):
            q = q * q.shape[-1]
        keep(QKV(q, k, v))

    return attention.qkv.register_forward_hook(hook)


def _hook_timm(attention: TimmAttention, keep: Keep) -> RemovableHandle:
    def hook(_layer: nn.Module, _inputs: tuple, output: Tensor) -> None:
        q, k, v = _split(output, attention.num_heads)
        keep(QKV(attention.q_norm(q), attention.k_norm(k), v))

    return attention.qkv.register_forward_hook(hook)


def _hook_beit(attention: BEiTAttention, keep: Keep) -> RemovableHandle:
    def hook(_attention: nn.Module, args: tuple, kwargs: dict) -> None:
        keep(_of_beit(attention, *args, **kwargs))

    return attention.register_forward_pre_hook(hook, with_kwargs=True)


def _of_beit(attention: BEiTAttention, x: Tensor, rel_pos_bias: Tensor | None = None) -> QKV:
    """From BEiT's input: its tokens and the position bias that blocks share, beside its own."""
    bias = attention.qkv.bias
    if attention.bias == 'qv_bias':  # keys have none
        bias = torch.cat([attention.q_bias, torch.zeros_like(attention.v_bias), attention.v_bias])
    q, k, v = _split(F.linear(x, attention.qkv.weight, bias), attention.num_heads)
    usual = q.shape[-1] ** -0.5
    if attention.scale != usual:
        q = q * (attention.scale / usual)
    given = [] if rel_pos_bias is None else [rel_pos_bias]
    if attention.relative_position_bias_table is not None:
        own = attention.relative_position_bias_table[attention.relative_position_index]
        given.append(own.movedim(-1, 0))
    return QKV(q, k, v, sum(given).unsqueeze(0) if given else None)


def _split(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, N, 3 heads d) to three (B, heads, N, d)."""
    return qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


# By the exact class: one that inherits from these may compute with its layers in another way.
_HOOKS: dict[type, Callable[[nn.Module, Keep], RemovableHandle]] = {
    MultiheadAttention: _hook_mmpretrain,
    BEiTAttention: _hook_beit,
    TimmAttention: _hook_timm,
}
