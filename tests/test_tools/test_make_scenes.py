"""tools/make_scenes.py: all three layouts by one command, twice, and for an older folder."""

import shutil
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / 'tools' / 'make_scenes.py'


def make(out: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(TOOL), '--out', str(out), '--size', '32', '--workers', '1']
    return subprocess.run(
        [*command, '--train', '4', '--val', '2', *options], capture_output=True, text=True
    )


def test_layouts_are_made_kept_and_added_to_an_older_folder(tmp_path: Path) -> None:
    first = make(tmp_path)
    assert first.returncode == 0, first.stderr
    assert '4 training and 2 validation images; coco/ and ade/ have 2 and 2 more' in first.stdout
    image, annotations = tmp_path / 'train/boat/000000.jpg', tmp_path / 'coco/annotations'
    contents = {path.name: path.read_bytes() for path in annotations.iterdir()}
    assert set(contents) == {'instances_train2017.json', 'instances_val2017.json'}
    assert 'nothing to do' in make(tmp_path).stdout

    shutil.rmtree(tmp_path / 'coco')
    shutil.rmtree(tmp_path / 'ade')
    (tmp_path / 'layouts.json').unlink()
    inode = image.stat().st_ino
    assert make(tmp_path).returncode == 0
    assert image.stat().st_ino == inode
    assert {path.name: path.read_bytes() for path in annotations.iterdir()} == contents
    assert len(list((tmp_path / 'ade' / 'annotations' / 'training').iterdir())) == 6

    refused = make(tmp_path, '--seed', '1')
    assert refused.returncode == 1
    assert refused.stderr.startswith('make_scenes: ') and 'seed ([0] there, [1]' in refused.stderr


def test_layouts_can_wait(tmp_path: Path) -> None:
    first = make(tmp_path, '--folders-only')
    assert first.returncode == 0, first.stderr
    assert {path.name for path in tmp_path.iterdir()} == {
        'annotations', 'meta.json', 'train', 'train.jsonl', 'val', 'val.jsonl',
    }  # fmt: skip
    assert 'nothing to do' in make(tmp_path, '--folders-only').stdout
    assert make(tmp_path).returncode == 0
    assert (tmp_path / 'coco' / 'annotations' / 'instances_val2017.json').is_file()
    assert 'nothing to do' in make(tmp_path, '--folders-only').stdout
