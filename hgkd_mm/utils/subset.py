"""A random share of labelled images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import train_test_split


def stratified_share(labels: Sequence[int], share: float, *, seed: int = 0) -> list[int]:
    """Sorted indices of a random share of every class, at least one image of each.

    By scikit-learn's ``train_test_split``, which would leave out classes of which the share is
    less than an image. Below a share of 1 at least as many images are left out as there are
    classes of which the share is an image or more.

    Raises:
        ValueError: The share is not above 0, or above 1.
    """
    if not 0 < share <= 1:
        raise ValueError(f'--share is a fraction, more than 0 and at most 1, and not {share}.')
    of_class: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        of_class[label].append(index)
    if share == 1:
        return list(range(len(labels)))
    generator = np.random.default_rng(seed)
    rare = {label for label, indices in of_class.items() if share * len(indices) < 1}
    picked = [int(generator.choice(of_class[label])) for label in sorted(rare)]
    common = [index for index, label in enumerate(labels) if label not in rare]
    if common:
        # Both parts need room for every class.
        count = min(int(share * len(common)), len(common) - (len(of_class) - len(rare)))
        chosen, _ = train_test_split(
            common, train_size=count, random_state=seed, stratify=[labels[i] for i in common]
        )
        picked += chosen
    return sorted(picked)
