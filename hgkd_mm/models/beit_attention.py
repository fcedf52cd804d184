"""BEiT's attention without the matrix of all pairs in memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmpretrain.models.backbones.beit import BEiTAttention
from torch import Tensor, nn


class FusedBEiTAttention(nn.Module):
    """What ``BEiTAttention`` computes, through ``scaled_dot_product_attention``.

    mmpretrain's own multiplies, adds the bias and takes the softmax step by step.

    Args:
        attention: mmpretrain's module, whose weights are used; without a position bias of its
            own.
    """

    def __init__(self, attention: BEiTAttention) -> None:
        super().__init__()
        self.num_heads = attention.num_heads
        self.scale = attention.scale
        self.qkv = attention.qkv
        self.proj = attention.proj
        with_bias = attention.bias == 'qv_bias'
        self.q_bias = attention.q_bias if with_bias else None
        self.v_bias = attention.v_bias if with_bias else None

    def forward(self, x: Tensor, rel_pos_bias: Tensor | None = None) -> Tensor:
        """Attends.

        Args:
            x: (B, N, D) tokens.
            rel_pos_bias: (heads, N, N) or (B, heads, N, N), added to the logits.

        Returns:
            (B, N, D).
        """
        bias = self.qkv.bias
        if self.q_bias is not None:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, bias)
        q, k, v = qkv.unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        if rel_pos_bias is not None:
            rel_pos_bias = rel_pos_bias.to(q.dtype)
            if rel_pos_bias.dim() == 3:
                rel_pos_bias = rel_pos_bias.unsqueeze(0)
        out = F.scaled_dot_product_attention(q * self.scale, k, v, rel_pos_bias, scale=1.0)
        return self.proj(out.transpose(1, 2).flatten(2))
