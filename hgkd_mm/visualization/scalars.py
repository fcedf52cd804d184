"""Curves from the scalars that MMEngine's ``LocalVisBackend`` writes."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Curve(NamedTuple):
    """One scalar over training.

    Attributes:
        steps: (T,) int64, increasing: iterations, for what the logger writes.
        values: (T,) float64.
    """

    steps: NDArray[np.int64]
    values: NDArray[np.float64]


def read_scalars(path: str | Path) -> dict[str, Curve]:
    """Read the curves of a run, over all its restarts.

    Args:
        path: A work directory (all ``<timestamp>/vis_data/scalars.json`` under it
            are joined; where a resumed run repeats a step, its value counts), or
            one ``scalars.json``.

    Returns:
        Name to curve, for every number that was logged: ``loss``, ``lr``,
        ``knn/top1``, ...

    Raises:
        FileNotFoundError: There is no ``scalars.json``.
    """
    path = Path(path)
    files = [path] if path.is_file() else sorted(path.glob('*/vis_data/scalars.json'))
    if not files:
        raise FileNotFoundError(
            f'No */vis_data/scalars.json under {path}. Give the work_dir of a run whose '
            "visualizer.vis_backends has dict(type='LocalVisBackend')."
        )
    series: dict[str, dict[int, float]] = {}
    for file in files:
        for record in _records(file):
            step = record.pop('step', None)
            if step is None:
                continue
            for name, value in record.items():
                if isinstance(value, int | float):
                    series.setdefault(name, {})[int(step)] = float(value)
    return {name: _curve(points) for name, points in series.items()}


def _records(file: Path) -> list[dict[str, Any]]:
    records = []
    for line in file.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            # A run that was killed leaves half a line; what comes before it is good.
            continue
    return records


def _curve(points: dict[int, float]) -> Curve:
    steps = sorted(points)
    values = [points[step] for step in steps]
    return Curve(np.array(steps, dtype=np.int64), np.array(values, dtype=np.float64))
