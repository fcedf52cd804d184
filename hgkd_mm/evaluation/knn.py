"""Weighted k-nearest-neighbour classification of frozen features."""

import torch
import torch.nn.functional as F
from torch import Tensor

# Entries of a similarity block, so that a block of queries takes 256 MiB in float32.
_BLOCK_ENTRIES = 2**26


def knn_scores(
    queries: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    *,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    chunk_size: int | None = None,
) -> Tensor:
    """Class votes of the k most similar bank entries, weighted by similarity.

    ``score(c) = sum_{i in N_k} exp(s_i / tau) [y_i = c]``, with ``s_i`` the cosine
    similarity of the query to neighbour i. Source: InstDisc (Wu et al. 2018,
    section 3.4, tau = 0.07); k = 20 as in DINO (Caron et al. 2021, section 4.1).
    Both stated. Each row is scaled by ``exp(-max_i s_i / tau)``, which keeps small
    temperatures finite and changes no ranking.

    Args:
        queries: (Q, D) features, not necessarily normalised.
        bank: (N, D) features of the labelled reference images.
        bank_labels: (N,) class indices.
        num_classes: Number of classes C.
        k: Neighbours that vote.
        temperature: tau.
        chunk_size: Queries compared at a time. Default: what keeps the block of
            similarities near 256 MiB.

    Returns:
        (Q, C) float32 votes, on the device of the features.

    Raises:
        ValueError: k exceeds the bank, the temperature is not positive, or the
            features are not finite.
    """
    _check(queries, bank, k, temperature)
    queries = F.normalize(queries.float(), dim=1)
    bank = F.normalize(bank.float(), dim=1)
    bank_labels = bank_labels.to(bank.device)
    chunk_size = chunk_size or max(1, _BLOCK_ENTRIES // len(bank))
    scores = []
    for chunk in queries.split(chunk_size):
        similarity, index = (chunk @ bank.T).topk(k, dim=1)
        weights = ((similarity - similarity[:, :1]) / temperature).exp()
        votes = weights.new_zeros(len(chunk), num_classes)
        scores.append(votes.scatter_add_(1, bank_labels[index], weights))
    return torch.cat(scores)


def knn_accuracy(
    train_features: Tensor,
    train_labels: Tensor,
    val_features: Tensor,
    val_labels: Tensor,
    *,
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    """Top-1 accuracy, in percent, of ``knn_scores`` on a validation set.

    Args:
        train_features: (N, D) bank.
        train_labels: (N,) class indices.
        val_features: (Q, D) queries.
        val_labels: (Q,) class indices.
        k: Neighbours that vote.
        temperature: Of the votes.

    Returns:
        Percentage of queries whose most voted class is their label.

    Raises:
        ValueError: As ``knn_scores``.
    """
    scores = knn_scores(
        val_features,
        train_features,
        train_labels,
        num_classes=int(train_labels.max()) + 1,
        k=k,
        temperature=temperature,
    )
    correct = scores.argmax(1) == val_labels.to(scores.device)
    return 100.0 * correct.float().mean().item()


def _check(queries: Tensor, bank: Tensor, k: int, temperature: float) -> None:
    if not 1 <= k <= len(bank):
        raise ValueError(
            f'k={k} neighbours were asked for, but there are {len(bank)} labelled images to '
            f'choose from. Set k between 1 and {len(bank)}, or use more training images.'
        )
    if temperature <= 0:
        raise ValueError(f'The temperature of the kNN vote must be positive, but is {temperature}.')
    for name, features in (('query', queries), ('bank', bank)):
        broken = int((~features.isfinite().all(1)).sum())
        if broken:
            raise ValueError(
                f'{broken} of {len(features)} {name} features hold NaN or Inf: the weights of '
                'the network are broken. Go back to an earlier checkpoint.'
            )
