"""Class weights where some labels are to be ignored; importing this registers them with mmseg."""

from __future__ import annotations

from typing import Any

from mmseg.models.losses import CrossEntropyLoss
from mmseg.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class ClassWeightedCrossEntropyLoss(CrossEntropyLoss):
    """mmseg's ``CrossEntropyLoss``, averaged over the weights of the labels that count.

    As torch and newer versions of mmseg do it. mmseg 1.2 looks up the weight of the ignored
    label too, and stops with an IndexError at the first image that has one.

    Args:
        class_weight: one number a class.
        options: of ``CrossEntropyLoss``.
    """

    def __init__(self, *, class_weight: list[float], **options: Any) -> None:
        super().__init__(class_weight=class_weight, **options)

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        *,
        avg_factor: Tensor | None = None,
        ignore_index: int = -100,
        **options: Any,
    ) -> Tensor:
        """The loss of (B, C, H, W) logits for (B, H, W) labels; the rest as in mmseg."""
        if avg_factor is None:
            counted = label[label != ignore_index]
            avg_factor = cls_score.new_tensor(self.class_weight)[counted].sum()
        options |= dict(avg_factor=avg_factor, ignore_index=ignore_index)
        return super().forward(cls_score, label, **options)
