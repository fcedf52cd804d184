"""How heads normalize a teacher's features, and whitening, one of these ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

RIDGE = 0.02


def read_target_norm(
    setting: str | dict | None, *, known: Sequence[str | None], dim: int, key: str
) -> tuple[str | None, int | None]:
    """Kind of normalization, and the rank of a whitening.

    Args:
        setting: one of ``known``, or ``dict(type='whiten', rank=64)``.
        known: the names of the head.
        dim: channels of the features.
        key: config key, for messages.

    Raises:
        ValueError: an unknown name or key, or a rank that is not between 1 and ``dim``.
    """
    config = dict(setting) if isinstance(setting, Mapping) else {'type': setting}
    kind, rank = config.pop('type', None), config.pop('rank', None)
    bad_rank = rank is not None and (kind != 'whiten' or not 1 <= rank <= dim)
    if config or kind not in known or bad_rank:
        raise ValueError(
            f'{key} is {setting!r}, expected one of {list(known)}, or '
            f"dict(type='whiten', rank=R) for the R of {dim} directions of largest variance."
        )
    return kind, rank


def zca_transform(covariance: Tensor, ridge: float = RIDGE, rank: int | None = None) -> Tensor:
    """(D, D): inverse square root of a covariance.

    Args:
        covariance: (D, D).
        ridge: multiple of the mean variance that is added to each variance.
        rank: number of directions that are kept, those of largest variance, scaled by
            sqrt(D / rank), so that the mean square of the result stays near 1; all if None.
    """
    floor = ridge * covariance.diagonal().mean().clamp(min=1e-12)
    values, vectors = torch.linalg.eigh(covariance)
    scale = (values.clamp(min=0) + floor).rsqrt()
    if rank is not None:
        vectors, scale = vectors[:, -rank:], scale[-rank:] * (len(values) / rank) ** 0.5
    return (vectors * scale) @ vectors.T


class Whitening(nn.Module):
    r"""ZCA whitening with running statistics: zero mean, covariance close to the identity.

    .. math:: \hat t = (t - \mu) (C + \epsilon\, \tfrac{\mathrm{tr}\, C}{D} I)^{-1/2}

    :math:`\mu` and :math:`C` are averages over the batches of all ranks, plain ones at first and
    exponential ones later. ZCA, not PCA, because its result does not depend on the sign or
    order of eigenvectors, which change from step to step. With a ``rank``, two directions of
    nearly the same variance may change places at the end of the list.

    Args:
        dim: channels D.
        momentum: least share of the newest batch in the averages.
        ridge: :math:`\epsilon`, so that directions without content are not blown up to noise.
        rank: see :func:`zca_transform`.
    """

    def __init__(
        self, dim: int, *, momentum: float = 0.01, ridge: float = RIDGE, rank: int | None = None
    ) -> None:
        super().__init__()
        self.momentum = momentum
        self.ridge = ridge
        self.rank = rank
        self.register_buffer('mean', torch.zeros(dim))
        self.register_buffer('second_moment', torch.eye(dim))
        self.register_buffer('transform', torch.eye(dim))
        self.register_buffer('updates', torch.zeros(()))

    @torch.no_grad()
    def update(self, features: Tensor, counted: Tensor) -> None:
        """Takes a batch (N, D) into the averages, of which the rows ``counted``, (N,) bool."""
        # Not under autocast: the covariance is a small difference of large moments.
        with torch.autocast(features.device.type, enabled=False):
            rows = torch.where(counted[:, None], features.to(self.mean.dtype), 0.0)
            count = counted.sum().to(rows.dtype)
            sums = torch.cat([count.view(1), rows.sum(0), (rows.T @ rows).flatten()])
            all_reduce(sums)
            self._follow(sums)

    def _follow(self, sums: Tensor) -> None:
        dim = len(self.mean)
        total = sums[0].clamp(min=1)
        mean, second = sums[1 : dim + 1] / total, sums[dim + 1 :].view(dim, dim) / total
        # A batch without rows, or with a value that is not finite, leaves no trace.
        usable = (sums[0] > 0) & sums.isfinite().all()
        share = (1 / (self.updates + 1)).clamp(min=self.momentum).to(mean.dtype)
        self.mean.lerp_(torch.where(usable, mean, self.mean), share)
        self.second_moment.lerp_(torch.where(usable, second, self.second_moment), share)
        self.updates.add_(usable)
        covariance = self.second_moment - torch.outer(self.mean, self.mean)
        self.transform.copy_(zca_transform(covariance, self.ridge, self.rank))

    def forward(self, features: Tensor) -> Tensor:
        """(N, D) whitened."""
        with torch.autocast(features.device.type, enabled=False):
            return (features.to(self.mean.dtype) - self.mean) @ self.transform
