"""Trainings on a handful of tiny images: repeated or not, side by side, stopped."""

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest
import torch
from PIL import Image

from hgkd_mm.experiments import ASSETS
from hgkd_mm.experiments.students import HGKD_CONFIG, SPARK_CONFIG
from hgkd_mm.experiments.teacher import TEACHERS
from hgkd_mm.experiments.training import Job, train
from hgkd_mm.utils.work_dir import BusyError, held

pytestmark = pytest.mark.slow

Options = dict[str, object]


def job(work_dir: Path, options: Options, title: str = 'tiny') -> Job:
    return Job(config=SPARK_CONFIG, work_dir=work_dir, options=options, title=title)


def test_a_finished_run_is_not_repeated_and_a_changed_one_is(
    folder: Path, tiny: Options, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    first = job(tmp_path / 'run', tiny)
    train(first)
    made = first.checkpoint.stat().st_mtime_ns
    state = torch.load(first.checkpoint, map_location='cpu', weights_only=False)['state_dict']
    assert any(key.startswith('backbone.') for key in state)
    assert not any('teacher' in key for key in state)

    capsys.readouterr()
    train(job(tmp_path / 'run', tiny))
    assert 'done before' in capsys.readouterr().out
    assert first.checkpoint.stat().st_mtime_ns == made

    # A training may fail after its last checkpoint, in the final validation.
    (first.work_dir / 'request.txt').unlink()
    (first.work_dir / 'output.log').write_text('the final validation failed')
    with pytest.raises(RuntimeError, match='exit 1'):
        first.check(1)
    assert not first.done
    first.check(0)
    assert first.done

    extra = folder / 'nested0' / 'extra.png'
    Image.new('RGB', (64, 64)).save(extra)
    assert not job(tmp_path / 'run', tiny).done
    extra.unlink()

    # Not silently the old result: another mask ratio is another run, and this one is refused.
    with pytest.raises(RuntimeError, match=r'(?s)tiny stopped.*model\.mask'):
        train(job(tmp_path / 'run', {**tiny, 'model.mask.ratio': 2.0}))
    assert not first.checkpoint.exists()
    (aside,) = tmp_path.glob('run.*')
    assert (aside / first.checkpoint.name).stat().st_mtime_ns == made


def test_a_folder_in_use_is_left_alone(tiny: Options, tmp_path: Path) -> None:
    work_dir = tmp_path / 'run'
    with held(work_dir):
        work_dir.mkdir()
        (work_dir / 'output.log').write_text('the other run')
        with pytest.raises(BusyError, match='--work-dir'):
            train(job(work_dir, tiny))
    assert (work_dir / 'output.log').read_text() == 'the other run'


def test_a_stopped_run_stops_the_one_beside_it(tiny: Options, tmp_path: Path) -> None:
    broken = job(tmp_path / 'c', tiny | {'model.mask.ratio': 2.0}, 'bad')
    beside = job(tmp_path / 'd', tiny | {'train_cfg.max_epochs': 500}, 'long')
    with pytest.raises(RuntimeError, match='bad stopped'):
        train(beside, broken)
    assert not beside.done and not beside.checkpoint.exists()


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
    with pytest.raises(FileNotFoundError, match='train_dataloader.dataset.data_root'):
        train(job(tmp_path / 'run', tiny))


def test_weights_that_configs_name_are_found_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    models = [
        Job(config=config, work_dir=tmp_path / 'run', options={}, title='').settings.model
        for config in (HGKD_CONFIG, TEACHERS['supervised'], TEACHERS['contrastive'])
    ]
    assert models[0].teachers.mim.checkpoint == str(ASSETS / 'mae_scenes.safetensors')
    for model in models[1:]:
        assert model.backbone.init_cfg.checkpoint == str(ASSETS / 'mae_scenes.safetensors')
