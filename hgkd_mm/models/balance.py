"""Weights of the terms of an objective, found while training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from mmengine.dist import all_reduce
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor, nn

_SCALE = 2.0**14


class LossBalance(BaseModule):
    """Weighs the terms of an objective against each other, beside their fixed weights."""

    def name_terms(self, names: list[str]) -> None:
        """Says which terms there are, once, before training.

        Raises:
            ValueError: a name with 'loss' in it, since MMEngine adds up all that is so called.
        """
        bad = [name for name in names if 'loss' in name or name == 'uncertainty']
        if bad:
            raise ValueError(
                f"With model.balance no head may be called {bad}: take names without 'loss', and "
                "other than 'uncertainty', in model.heads."
            )
        self.prepare(len(names))

    @abstractmethod
    def prepare(self, count: int) -> None:
        """Makes room for so many terms."""

    @abstractmethod
    def forward(
        self, losses: Mapping[str, Tensor], weights: Mapping[str, float], shared: Tensor
    ) -> dict[str, Tensor]:
        """Weighs one step's terms.

        Args:
            losses: name to term, a scalar each, unweighted; the same names in each step.
            weights: the fixed weight of each. Terms are balanced without it, then it counts.
            shared: what all of them are computed from, for their gradients.

        Returns:
            ``loss_<name>``: the weighted terms, and what else belongs into the total;
            ``balance_<name>``: the factors that were found, for the log.
        """


@MODELS.register_module()
class GradientBalance(LossBalance):
    r"""Factors for which every term pulls as hard at the student as its weight says.

    .. math::
        L = \sum_i w_i \frac{\bar g}{g_i} L_i, \qquad
        g_i = \mathrm{EMA}\,\lVert \nabla_z L_i \rVert, \qquad
        \bar g = \exp \tfrac{1}{n} \sum_i \log g_i

    with the student's last map z. It is GradNorm's aim (Chen et al. 2018, with alpha = 0),
    reached by division instead of by learning; our addition, no paper on distillation here has
    it. The mean is geometric, so that the product of the factors is 1 and a term of vast
    gradients does not raise the learning rate. Costs a backward pass through neck and heads a
    term. Norms are averaged over ranks, which so keep the same factors; one that is not finite,
    as float16 has now and then, is left out.

    Args:
        momentum: of the moving average; the first step sets it.
        eps: below it a gradient counts as absent, and the term's factor is 1.

    Raises:
        ValueError: the momentum is not in [0, 1).
        RuntimeError: while training, the student's last map takes no gradient.
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

    def prepare(self, count: int) -> None:
        """See :class:`LossBalance`."""
        self.norms = torch.zeros(count)

    def forward(
        self, losses: Mapping[str, Tensor], weights: Mapping[str, float], shared: Tensor
    ) -> dict[str, Tensor]:
        """See :class:`LossBalance`."""
        if self.training and torch.is_grad_enabled():
            self._update(losses, shared)
        known = self.norms > self.eps
        logs = torch.where(known, self.norms.clamp(min=self.eps).log(), 0.0)
        mean = logs.sum() / known.sum().clamp(min=1)
        factors = torch.where(known, (mean - logs).exp(), 1.0)
        found = {}
        for (name, loss), factor in zip(losses.items(), factors, strict=True):
            found[f'loss_{name}'] = weights[name] * factor * loss
            found[f'balance_{name}'] = factor
        return found

    def _update(self, losses: Mapping[str, Tensor], shared: Tensor) -> None:
        if not shared.requires_grad:
            raise RuntimeError(
                "GradientBalance weighs terms by their gradients at the student's last map, which "
                'takes none, as where the backbone is frozen: train it, or remove model.balance.'
            )
        norms = torch.stack([_gradient_norm(loss, shared) for loss in losses.values()])
        all_reduce(norms, op='mean')
        # Where a term began later, say after its queue had filled, its first norm counts whole.
        fresh = self.norms <= self.eps
        moved = self.momentum * self.norms + (1 - self.momentum) * norms
        moved = torch.where(fresh, norms, moved)
        self.norms = torch.where(norms.isfinite(), moved, self.norms)


@MODELS.register_module()
class UncertaintyBalance(LossBalance):
    r"""Learned weights: each term is scaled by its own uncertainty (Kendall et al. 2018).

    .. math::
        L = \sum_i w_i (e^{-s_i} L_i + s_i)

    in the simplified form that is widely used, with a learned :math:`s_i` a term, zero at first,
    and the heads' weights w.
    Terms must be positive, or nothing bounds their weight. Weight decay would pull the
    :math:`s_i` to 0: give ``balance`` a ``decay_mult`` of 0 in ``paramwise_cfg.custom_keys``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_variances = nn.Parameter(torch.zeros(0))

    def prepare(self, count: int) -> None:
        """See :class:`LossBalance`."""
        self.log_variances = nn.Parameter(torch.zeros(count))

    def forward(
        self, losses: Mapping[str, Tensor], weights: Mapping[str, float], shared: Tensor
    ) -> dict[str, Tensor]:
        """See :class:`LossBalance`."""
        found, own = {}, self.log_variances.new_zeros(())
        for (name, loss), log_variance in zip(losses.items(), self.log_variances, strict=True):
            factor = (-log_variance).exp()
            found[f'loss_{name}'] = weights[name] * factor * loss
            found[f'balance_{name}'] = factor.detach()
            own = own + weights[name] * log_variance
        return found | {'loss_uncertainty': own}


def _gradient_norm(loss: Tensor, shared: Tensor) -> Tensor:
    if not loss.requires_grad:
        return loss.new_zeros(())
    # Scaled as a GradScaler would, or the gradients of means over many numbers vanish in float16.
    (gradient,) = torch.autograd.grad(loss * _SCALE, shared, retain_graph=True, allow_unused=True)
    return loss.new_zeros(()) if gradient is None else gradient.float().norm() / _SCALE
