"""Trainings on a handful of tiny images: repeated or not, side by side, stopped."""

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest
import torch
from PIL import Image

from hgkd_mm.experiments.places import ASSETS
from hgkd_mm.experiments.students import HGKD_CONFIG, SPARK_CONFIG
from hgkd_mm.experiments.training import Job, train
from hgkd_mm.utils.work_dir import BusyError, held

pytestmark = pytest.mark.slow

Options = dict[str, object]


def job(work_dir: Path, options: Options, title: str = 'tiny') -> Job:
    return Job(config=SPARK_CONFIG, work_dir=work_dir, options=options, title=title)


def test_a_finished_run_is_not_repeated_and_a_changed_one_is(
    folder: Path, tiny: Options, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    work_dir = tmp_path / 'run'
    (checkpoint,) = train(job(work_dir, tiny))
    made = checkpoint.stat().st_mtime_ns
    state = torch.load(checkpoint, map_location='cpu', weights_only=False)['state_dict']
    assert any(key.startswith('backbone.') for key in state)
    assert not any('teacher' in key for key in state)

    capsys.readouterr()
    assert train(job(work_dir, tiny)) == [checkpoint]
    assert 'done before' in capsys.readouterr().out
    assert checkpoint.stat().st_mtime_ns == made

    extra = folder / 'nested0' / 'extra.png'
    Image.new('RGB', (64, 64)).save(extra)
    assert not job(work_dir, tiny).done
    extra.unlink()

    # Not silently the old result: another mask ratio is another run, and this one is refused.
    changed = job(work_dir, {**tiny, 'model.mask.ratio': 2.0})
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r'(?s)tiny stopped.*model\.mask\.ratio'):
            train(changed)
        assert not checkpoint.exists()
        # The finished one was moved aside; what the refused one left is in nobody's way.
        assert (tmp_path / 'run.1' / checkpoint.name).stat().st_mtime_ns == made
        assert sorted(p.name for p in tmp_path.glob('run*')) == ['run', 'run.1']


def test_a_folder_in_use_is_left_alone(tiny: Options, tmp_path: Path) -> None:
    work_dir = tmp_path / 'run'
    with held(work_dir):
        work_dir.mkdir()
        (work_dir / 'output.log').write_text('the other run')
        with pytest.raises(BusyError, match='--work-dir'):
            train(job(work_dir, tiny))
    assert (work_dir / 'output.log').read_text() == 'the other run'


def test_a_folder_is_held_from_the_start_to_the_end_of_a_training(
    tiny: Options, tmp_path: Path
) -> None:
    first = job(tmp_path / 'run', tiny)
    process = first.start(1)
    with pytest.raises(BusyError, match='--work-dir'):
        job(tmp_path / 'run', tiny).start(1)
    process.wait()
    first.finish(process, 0.0)
    assert first.done


def test_only_what_a_job_left_before_its_first_checkpoint_is_removed(
    tiny: Options, tmp_path: Path
) -> None:
    work_dir = tmp_path / 'run'
    one = job(work_dir, tiny)
    one._clear()  # there is nothing yet
    work_dir.mkdir()
    (work_dir / 'epoch_300.pth').write_text('months of work')  # by tools/train.py
    one._clear()
    assert (tmp_path / 'run.1' / 'epoch_300.pth').read_text() == 'months of work'

    work_dir.mkdir()
    one.log.touch()
    one.request.touch()  # finished, and its checkpoint went elsewhere
    one._clear()
    assert (tmp_path / 'run.2' / 'request.txt').is_file()

    work_dir.mkdir()
    one.log.touch()
    one._clear()
    assert not work_dir.exists() and len(list(tmp_path.glob('run*'))) == 2


def test_two_runs_side_by_side(tiny: Options, tmp_path: Path) -> None:
    first, second = (job(tmp_path / name, tiny, name) for name in 'ab')
    made = train(first, second)
    assert made == [first.checkpoint, second.checkpoint] and first.done and second.done
    broken = job(tmp_path / 'c', tiny | {'model.mask.ratio': 2.0}, 'bad')
    fresh = job(tmp_path / 'd', tiny | {'train_cfg.max_epochs': 500}, 'long')
    with pytest.raises(RuntimeError, match='bad stopped'):
        train(fresh, broken)
    assert not fresh.done and not fresh.checkpoint.exists()


def test_a_training_ends_with_the_tool_that_started_it(
    tiny: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, start = [], Job.start

    def start_and_be_told_to_stop(self: Job, threads: int) -> subprocess.Popen:
        started.append(start(self, threads))
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        return started[0]

    monkeypatch.setattr(Job, 'start', start_and_be_told_to_stop)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit, match=str(128 + signal.SIGTERM)):
            train(job(tmp_path / 'run', tiny | {'train_cfg.max_epochs': 500}))
        assert started[0].poll() == -signal.SIGTERM
    finally:
        started[0].kill()
    assert signal.getsignal(signal.SIGTERM) is before


def test_images_that_do_not_do_are_named_before_any_training(tiny: Options, tmp_path: Path) -> None:
    dropping = {'train_dataloader.batch_size': 64, 'train_dataloader.drop_last': True}
    with pytest.raises(RuntimeError, match='8 images .* 64: .* train_dataloader.batch_size'):
        train(job(tmp_path / 'run', tiny | dropping))
    (tmp_path / 'empty').mkdir()
    tiny['train_dataloader.dataset']['data_root'] = str(tmp_path / 'empty')
    with pytest.raises((RuntimeError, FileNotFoundError, ValueError), match='(no|any) image'):
        train(job(tmp_path / 'run', tiny))


def test_weights_that_configs_name_are_found_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    student = Job(config=HGKD_CONFIG, work_dir=tmp_path / 'run', options={}, title='student')
    assert student.settings.model.teachers.mim.checkpoint == str(ASSETS / 'mae_scenes.safetensors')
