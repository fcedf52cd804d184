"""Token relations: how the tokens of an image attend to each other, and how two such differ."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..outputs import LayerTokens
from ..qkv import QKV


def relation_logits(first: Tensor, second: Tensor, num_heads: int) -> Tensor:
    r"""Scaled products :math:`A B^\top / \sqrt d` of every pair of tokens, head by head.

    Args:
        first: (B, h, N, c), queries for example.
        second: (B, h, N, c), keys for example.
        num_heads: relation heads. If they are not h, all h * c channels are split anew, as
            MiniLMv2 does (arXiv 2012.15828, section 3.1), so that networks of different heads
            and widths can be compared.

    Returns:
        (B, num_heads, N, N), at least float32, under autocast too, with d = h * c / num_heads.
    """
    # Autocast would take the product in half precision again, where it is coarse or overflows.
    with torch.autocast(first.device.type, enabled=False):
        first, second = (_split(x, num_heads) for x in (first, second))
        return first / math.sqrt(first.shape[3]) @ second.transpose(2, 3)


def relation_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    r"""KL divergence of a student's relations from a teacher's, :math:`\mathrm{KL}(R^T \| R^S)`.

    Relations R are the softmax of the logits over the last axis. Logarithms are those of
    log-softmax, so that a relation that vanishes in half precision gives no infinity.

    Args:
        student: (B, h, N, N) logits.
        teacher: (B, h, N, N) logits.

    Returns:
        Mean over images, heads and query tokens of the sum over keys.
    """
    log_student, log_teacher = student.log_softmax(-1), teacher.log_softmax(-1)
    return F.kl_div(log_student, log_teacher, reduction='none', log_target=True).sum(-1).mean()


def at_positions(tokens: LayerTokens, index: Tensor | None, *, with_cls: bool) -> QKV:
    """Queries, keys and values of chosen tokens of a teacher.

    Taking the tokens takes rows and columns of the logits, so that relations among those that
    are left still sum to 1.

    Args:
        tokens: of a layer.
        index: (B, n) positions on the token grid; None for all that there are.
        with_cls: keep the prefix tokens, in front.
    """

    def chosen(x: Tensor) -> Tensor:
        prefix, patches = x[:, :, : tokens.prefix], x[:, :, tokens.prefix :]
        if index is not None:
            where = index[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3])
            patches = patches.gather(2, where)
        return torch.cat([prefix, patches], dim=2) if with_cls else patches

    q, k, v = (chosen(x) for x in (tokens.qkv.q, tokens.qkv.k, tokens.qkv.v))
    return QKV(q=q, k=k, v=v)


def _split(x: Tensor, num_heads: int) -> Tensor:
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    if x.shape[1] == num_heads:
        return x
    return x.transpose(1, 2).flatten(2).unflatten(2, (num_heads, -1)).transpose(1, 2)
