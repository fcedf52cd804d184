"""tools/make_scenes.py: the folders alone, then all three layouts, twice."""

import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / 'tools' / 'make_scenes.py'


def make(out: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(TOOL), '--out', str(out), '--size', '32', '--workers', '1']
    return subprocess.run(
        [*command, '--train', '4', '--val', '2', *options], capture_output=True, text=True
    )


def test_layouts_can_wait_and_are_kept(tmp_path: Path) -> None:
    first = make(tmp_path, '--folders-only')
    assert first.returncode == 0, first.stderr
    assert '4 training and 2 validation images.' in first.stdout
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {'meta.json', 'train', 'train.jsonl', 'val', 'val.jsonl'}
    assert 'also as COCO and ADE20K' in make(tmp_path).stdout
    assert len(list((tmp_path / 'ade' / 'annotations' / 'training').iterdir())) == 6
    stamp = (tmp_path / 'coco/annotations/instances_val2017.json').stat().st_mtime_ns
    assert make(tmp_path).returncode == 0
    assert (tmp_path / 'coco/annotations/instances_val2017.json').stat().st_mtime_ns == stamp

    refused = make(tmp_path, '--seed', '1')
    assert refused.returncode == 1
    assert refused.stderr.startswith('make_scenes: ') and 'seed 0, not 1' in refused.stderr
