"""L_sim: imitation of the teacher's similarities to a memory queue."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ..outputs import StudentOutput, TeacherOutput
from ..queue import MemoryQueue
from .base import DistillHead, Partners, at_least_float32
from .whitening import read_target_norm, zca_transform


@MODELS.register_module()
class SimilarityDistributionHead(DistillHead):
    r"""Pearson loss between the similarity distributions of student and teacher.

    With unit vectors :math:`z^s = \mathrm{unit}(P(s))`, :math:`z^t`, queue entries
    :math:`d_1 \dots d_K`, and :math:`\rho` the Pearson correlation over :math:`j`:

    .. math::
        p^s_{ij} = \mathrm{softmax}_j(z^s_i \cdot d_j / \tau_s), \qquad
        p^t_{ij} = \mathrm{softmax}_j(z^t_i \cdot d_j / \tau_t), \qquad
        L_\mathrm{sim} = 1 - \frac{1}{B} \sum_i \rho(p^s_i, p^t_i)

    :math:`s` is the mean of the student's last map over visible positions and :math:`P` a
    2-layer MLP into the teacher's embedding space: the teacher is frozen and the queue holds
    its embeddings, so both vectors must live there.

    Stated: "Pearson coefficient loss between the similarity distribution of the teacher and
    the student" (H-GKD Fig. 4), via a memory queue (TL;DR). Inferred: the rest, from SEED
    (queue, projector, softmax) and DIST (Pearson per image), docs/sources.md 1.3b-c, 1.4 eq. 5-7.

    Before anything is stored there is nothing to be similar to: with fewer than two
    candidates the loss is an exact zero that keeps the graph (the first step of a run).
    Computed in float32 also under autocast.

    Args:
        in_channels: channels of the student's last map; derived in a model.
        embed_dim: width E of the teacher's embedding; derived in a model.
        queue_size: capacity K. Inferred default 65536, SEED's.
        hidden_channels: width of the projector's hidden layer; ``in_channels`` if None, as
            in SEED.
        tau_s: student temperature. Inferred default .2, SEED's.
        tau_t: teacher temperature. Inferred default .2, equal to ``tau_s`` so that perfect
            imitation is the minimum, exactly zero. SEED's 1e-4 makes the teacher's
            distribution one-hot, and the correlation with it sees only the nearest entry.
        center: subtract the mean of the queue from teacher embeddings before taking unit
            vectors. Inferred default True: mean-pooled features of MIM transformers share one
            large common direction (cosine about .9 between any two images), so without it
            all similarities are nearly equal at any usual temperature and the differences
            between images are a small remainder. The queue stores uncentered unit vectors, and
            the mean is taken anew each step, so no entry goes stale.
        target_norm: 'whiten', or ``dict(type='whiten', rank=64)``, decorrelates the centered
            embeddings by the covariance of the queue (:func:`zca_transform`). Inferred default
            None. For teachers whose embeddings vary in a few directions only (an effective
            rank of 6 of 192 for the quickstart's MAE): imitating those similarities would
            collapse the student onto the same directions. It costs an eigendecomposition a step.
        own_entry: let the image's own teacher embedding be candidate 0, as in SEED. Inferred
            default False: the equations compare with the queue, and with a candidate of
            similarity 1 the correlation is decided by that entry alone.

    Raises:
        ValueError: a temperature is not positive, the queue cannot hold two entries, or
            whitening is unknown, without centering or of a rank out of range.
    """

    reads = 'maps'

    def __init__(
        self,
        *,
        in_channels: int,
        embed_dim: int,
        queue_size: int = 65536,
        hidden_channels: int | None = None,
        tau_s: float = 0.2,
        tau_t: float = 0.2,
        center: bool = True,
        target_norm: str | dict | None = None,
        own_entry: bool = False,
        **head: Any,
    ) -> None:
        super().__init__(**head)
        if tau_s <= 0 or tau_t <= 0:
            raise ValueError(
                f'tau_s={tau_s} and tau_t={tau_t} of SimilarityDistributionHead must be positive.'
            )
        if queue_size < 2:
            raise ValueError(
                f'queue_size of SimilarityDistributionHead is {queue_size}, expected at least 2.'
            )
        kind, self.whiten_rank = read_target_norm(
            target_norm,
            known=('whiten', None),
            dim=embed_dim,
            key='target_norm of SimilarityDistributionHead',
        )
        self.whiten = kind == 'whiten'
        if self.whiten and not center:
            raise ValueError(
                f'target_norm={target_norm!r} of SimilarityDistributionHead needs center=True: a '
                'covariance is taken around the mean.'
            )
        self.embed_dim = embed_dim
        self.tau_s = tau_s
        self.tau_t = tau_t
        self.center = center
        self.own_entry = own_entry
        hidden = hidden_channels or in_channels
        self.projector = nn.Sequential(
            nn.Linear(in_channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, embed_dim)
        )
        self.queue = MemoryQueue(size=queue_size, dim=embed_dim)

    @classmethod
    def derive(cls, given: Mapping[str, Any], partners: Partners) -> dict[str, Any]:
        return {
            'in_channels': partners.map_channels[-1],
            'embed_dim': partners.teacher.embedding_dim,
        }

    def forward(self, student: StudentOutput, teacher: TeacherOutput) -> Tensor:
        """See :meth:`DistillHead.forward`; in training mode the queue is filled afterwards."""
        z_s, own = self._unit_vectors(student, teacher)
        with torch.autocast(z_s.device.type, enabled=False):
            loss = self._loss(z_s, own)
        if self.training:
            self.queue.enqueue(own)
        return loss

    def distributions(
        self, student: StudentOutput, teacher: TeacherOutput
    ) -> tuple[Tensor, Tensor]:
        """The distributions that the loss compares; the queue is left as it is.

        Returns:
            :math:`p^s` and :math:`p^t`, (B, K) each, K the number of candidates: entries stored
            in the queue, after the image's own with ``own_entry``. K may be 0.
        """
        z_s, own = self._unit_vectors(student, teacher)
        with torch.autocast(z_s.device.type, enabled=False):
            return self._distributions(z_s, own)

    def _unit_vectors(
        self, student: StudentOutput, teacher: TeacherOutput
    ) -> tuple[Tensor, Tensor]:
        pooled = student.maps[-1].mean_visible()
        embedding = at_least_float32(teacher.embedding)
        with torch.autocast(pooled.device.type, enabled=False):
            projected = self.projector(at_least_float32(pooled))
            return F.normalize(projected, dim=1), F.normalize(embedding, dim=1)

    def _loss(self, z_s: Tensor, own: Tensor) -> Tensor:
        if self.queue.num_stored + self.own_entry < 2:
            return z_s.sum() * 0.0
        p_s, p_t = self._distributions(z_s, own)
        return 1.0 - pearson(p_s, p_t).mean()

    def _distributions(self, z_s: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        entries = self.queue.stored().to(own.dtype)
        if self.center and len(entries):
            mean = entries.mean(0)
            entries, own = entries - mean, own - mean
            if self.whiten:
                transform = zca_transform(entries.T @ entries / len(entries), rank=self.whiten_rank)
                entries, own = entries @ transform, own @ transform
            entries, own = F.normalize(entries, dim=1), F.normalize(own, dim=1)
        p_s = self._distribution(z_s, own, entries, self.tau_s)
        p_t = self._distribution(own, own, entries, self.tau_t)
        return p_s, p_t

    def _distribution(self, z: Tensor, own: Tensor, entries: Tensor, tau: float) -> Tensor:
        similarities = z @ entries.T
        if self.own_entry:
            to_own = (z * own).sum(1, keepdim=True)
            similarities = torch.cat([to_own, similarities], dim=1)
        return F.softmax(similarities / tau, dim=1)


def pearson(a: Tensor, b: Tensor, eps: float = 1e-8) -> Tensor:
    """Pearson correlation of each row, (N, K) and (N, K) to (N,).

    The cosine of the centred rows, as in DIST (docs/sources.md 1.3c). A constant row gives 0.
    """
    a = a - a.mean(dim=1, keepdim=True)
    b = b - b.mean(dim=1, keepdim=True)
    return F.cosine_similarity(a, b, dim=1, eps=eps)
