"""Curves from the scalars that MMEngine's ``LocalVisBackend`` writes."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Curve(NamedTuple):
    """One scalar over training."""

    steps: NDArray[np.int64]  # (T,) iterations, increasing
    values: NDArray[np.float64]  # (T,)


def read_scalars(path: str | Path) -> dict[str, Curve]:
    """The curves of all numbers that a run logged, by name: ``loss``, ``lr``, ``knn/top1``, ...

    Args:
        path: a work directory, whose ``<timestamp>/vis_data/scalars.json`` are joined (if a
            resumed run repeats a step, its value counts), or one ``scalars.json``.

    Raises:
        FileNotFoundError: there is no ``scalars.json``.
    """
    path = Path(path)
    files = [path] if path.is_file() else sorted(path.glob('*/vis_data/scalars.json'))
    if not files:
        raise FileNotFoundError(
            f'No */vis_data/scalars.json under {path}. Give the work_dir of a run whose '
            "visualizer.vis_backends has dict(type='LocalVisBackend')."
        )
    series: dict[str, dict[int, float]] = defaultdict(dict)
    for record in (record for file in files for record in _records(file) if 'step' in record):
        step = int(record.pop('step'))
        for name, value in record.items():
            if isinstance(value, int | float):
                series[name][step] = float(value)
    return {
        name: Curve(
            np.array(sorted(points), dtype=np.int64),
            np.array([points[step] for step in sorted(points)], dtype=np.float64),
        )
        for name, points in series.items()
    }


def _records(file: Path) -> Iterator[dict[str, Any]]:
    for line in file.read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            # A run that was killed leaves half a line; what comes before it is good.
            continue
