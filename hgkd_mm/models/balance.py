"""Weights of the terms of an objective, found while training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from mmengine.dist import all_reduce
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor, nn


class LossBalance(BaseModule):
    """Weighs the terms of an objective against each other, beside their fixed weights."""

    @abstractmethod
    def name_terms(self, names: list[str]) -> None:
        """Says which terms there are, once, before training."""

    @abstractmethod
    def forward(self, losses: Mapping[str, Tensor], shared: Tensor) -> dict[str, Tensor]:
        """Weighs one step's terms.

        Args:
            losses: name to term, a scalar each; the same names in each step.
            shared: what all of them are computed from, for their gradients.

        Returns:
            ``loss_<name>``: the weighted terms, and what else belongs into the total;
            ``weight_<name>``: their factors, for the log.
        """


@MODELS.register_module()
class GradientBalance(LossBalance):
    r"""Weights for which every term pulls equally hard at the student.

    .. math::
        w_i = \frac{\bar g}{g_i}, \qquad g_i = \mathrm{EMA}\,\lVert \nabla_z L_i \rVert, \qquad
        \bar g = \exp \tfrac{1}{n} \sum_i \log g_i

    with the student's last map z. It is GradNorm's aim (Chen et al. 2018, with alpha = 0),
    reached by division instead of by learning; our addition, no paper on distillation here has
    it. The mean is geometric, so that the product of the weights is 1 and a term of vast
    gradients does not raise the learning rate. Costs a backward pass through neck and heads a
    term. Norms are averaged over ranks, which so keep the same weights.

    Args:
        momentum: of the moving average; the first step sets it.
        eps: below it a gradient counts as absent, and the term's weight is 1.

    Raises:
        ValueError: the momentum is not in [0, 1).
    """

    def __init__(self, momentum: float = 0.99, eps: float = 1e-12) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise ValueError(
                f'model.balance.momentum is {momentum}, expected at least 0 and less than 1.'
            )
        self.momentum = momentum
        self.eps = eps
        self.register_buffer('norms', torch.zeros(0))

    def name_terms(self, names: list[str]) -> None:
        """See :class:`LossBalance`."""
        self.norms = torch.zeros(len(names))

    def forward(self, losses: Mapping[str, Tensor], shared: Tensor) -> dict[str, Tensor]:
        """See :class:`LossBalance`."""
        if self.training and torch.is_grad_enabled():
            self._update(losses, shared)
        known = self.norms > self.eps
        logs = torch.where(known, self.norms.clamp(min=self.eps).log(), 0.0)
        mean = logs.sum() / known.sum().clamp(min=1)
        weights = torch.where(known, (mean - logs).exp(), 1.0)
        found = {}
        for (name, loss), weight in zip(losses.items(), weights, strict=True):
            found[f'loss_{name}'] = weight * loss
            found[f'weight_{name}'] = weight
        return found

    def _update(self, losses: Mapping[str, Tensor], shared: Tensor) -> None:
        norms = torch.stack([_gradient_norm(loss, shared) for loss in losses.values()])
        all_reduce(norms, op='mean')
        # Where a term began later, say after its queue had filled, its first norm counts whole.
        fresh = self.norms <= self.eps
        moved = self.momentum * self.norms + (1 - self.momentum) * norms
        self.norms = torch.where(fresh, norms, moved)


@MODELS.register_module()
class UncertaintyBalance(LossBalance):
    r"""Learned weights: each term is scaled by its own uncertainty (Kendall et al. 2018).

    .. math::
        L = \sum_i e^{-s_i} L_i + s_i

    in the simplified form that is widely used, with a learned :math:`s_i` a term, zero at first.
    Terms must be positive, or nothing bounds their weight.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_variances = nn.Parameter(torch.zeros(0))

    def name_terms(self, names: list[str]) -> None:
        """See :class:`LossBalance`."""
        self.log_variances = nn.Parameter(torch.zeros(len(names)))

    def forward(self, losses: Mapping[str, Tensor], shared: Tensor) -> dict[str, Tensor]:
        """See :class:`LossBalance`."""
        found = {}
        for (name, loss), log_variance in zip(losses.items(), self.log_variances, strict=True):
            weight = (-log_variance).exp()
            found[f'loss_{name}'] = weight * loss
            found[f'weight_{name}'] = weight.detach()
        return found | {'loss_uncertainty': self.log_variances.sum()}


def _gradient_norm(loss: Tensor, shared: Tensor) -> Tensor:
    if not loss.requires_grad:
        return loss.new_zeros(())
    (gradient,) = torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)
    return loss.new_zeros(()) if gradient is None else gradient.float().norm()
