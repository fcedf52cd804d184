from __future__ import annotations

import json
from pathlib import Path

import pytest

from hgkd_mm.quickstart.setup_times import setup_times


def test_times_of_the_set_up(tmp_path: Path) -> None:
    times = {'download_s': 40, 'install_s': 150, 'mmcv_s': 14, 'total_s': 204}
    path = tmp_path / 'hgkd_setup.json'
    path.write_text(json.dumps(times))
    assert setup_times(path) == times


def test_without_a_set_up_nothing_was_done() -> None:
    assert set(setup_times(None).values()) == {0}


@pytest.mark.parametrize('held', [[], {'total_s': 1}])
def test_other_content_is_refused(held: object, tmp_path: Path) -> None:
    path = tmp_path / 'hgkd_setup.json'
    path.write_text(json.dumps(held))
    with pytest.raises(ValueError, match='expected are download_s, install_s, mmcv_s, total_s'):
        setup_times(path)
