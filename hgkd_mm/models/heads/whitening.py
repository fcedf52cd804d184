"""Decorrelation of teacher features, with statistics that follow the data."""

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

RIDGE = 0.02


def zca_transform(covariance: Tensor, ridge: float = RIDGE, rank: int | None = None) -> Tensor:
    """(D, D): inverse square root of a covariance.

    Args:
        covariance: (D, D).
        ridge: so many mean variances are added to each.
        rank: only the directions of largest variance are kept, so many of them, and scaled by
            sqrt(D / rank), so that the mean square of what comes out stays near 1.
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
    order of eigenvectors, which change from step to step. With a ``rank``, :math:`C^{-1/2}` is
    that of the leading directions alone; two directions of nearly the same variance may change
    places at the end of the list.

    Args:
        dim: channels D.
        momentum: least share of the newest batch in the averages.
        ridge: :math:`\epsilon`, so that directions without content are not blown up to noise.
        rank: see :func:`zca_transform`; all directions if None.

    Raises:
        ValueError: the rank is not between 1 and ``dim``.
    """

    def __init__(
        self, dim: int, *, momentum: float = 0.01, ridge: float = RIDGE, rank: int | None = None
    ) -> None:
        super().__init__()
        if rank is not None and not 1 <= rank <= dim:
            raise ValueError(f'The rank of a whitening is 1 to {dim}, its width; got {rank}.')
        self.momentum = momentum
        self.ridge = ridge
        self.rank = rank
        self.register_buffer('mean', torch.zeros(dim))
        self.register_buffer('second_moment', torch.eye(dim))
        self.register_buffer('transform', torch.eye(dim))
        self.register_buffer('updates', torch.zeros(()))

    @torch.no_grad()
    def update(self, features: Tensor, counted: Tensor) -> None:
        """Takes a batch into the averages.

        Args:
            features: (N, D).
            counted: (N,) bool, which rows exist.
        """
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
