"""How long tools/setup_env.sh took before the quickstart."""

from __future__ import annotations

import json
from pathlib import Path

NOTHING_DONE = {'download_s': 0, 'install_s': 0, 'mmcv_s': 0, 'total_s': 0}


def setup_times(path: Path | None) -> dict[str, int]:
    """Seconds of downloads, of installation, of mmcv (which may be compiled), and their sum.

    Args:
        path: what tools/setup_env.sh writes where HGKD_SETUP_TIMES says, with zeros if the
            environment was there; None where it did not run.

    Raises:
        ValueError: the file does not hold these four numbers.
    """
    if path is None:
        return dict(NOTHING_DONE)
    times = json.loads(path.read_text())
    if not isinstance(times, dict) or set(times) != set(NOTHING_DONE):
        raise ValueError(
            f'{path} (environment variable HGKD_SETUP_TIMES) holds {times}, expected are '
            f'{", ".join(NOTHING_DONE)}: run tools/setup_env.sh again.'
        )
    return times
