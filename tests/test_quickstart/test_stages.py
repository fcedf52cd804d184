"""The quickstart's stages on a handful of tiny images."""

import json
import os
import signal
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from hgkd_mm.quickstart.data import folder_options
from hgkd_mm.quickstart.evaluation import Score
from hgkd_mm.quickstart.job import Job
from hgkd_mm.quickstart.pretraining import HGKD_CONFIG, SPARK_CONFIG
from hgkd_mm.quickstart.report import print_table, write_summary
from hgkd_mm.quickstart.teacher import TEACHERS, export, train_teacher
from hgkd_mm.quickstart.training import train
from hgkd_mm.scenes import SceneFolder
from hgkd_mm.utils.work_dir import BusyError, held

MAE_CONFIG = TEACHERS['mae'].config
HYBRID_CONFIG = HGKD_CONFIG.with_name('hybrid_vit_scenes.py')


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for i in range(8):
        path = tmp_path / 'images' / f'nested{i % 2}' / f'{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (70, 50 + i, 3), dtype=np.uint8)).save(path)
    return tmp_path / 'images'


def tiny(folder: Path) -> dict[str, object]:
    return {
        **folder_options(folder, SPARK_CONFIG),
        'train_dataloader.batch_size': 4,
        'train_dataloader.num_workers': 0,
        'train_dataloader.persistent_workers': False,
        'train_cfg.max_epochs': 1,
        'default_hooks.checkpoint.interval': 1,
        'default_hooks.logger.interval': 1,
    }


def job(config: Path, work_dir: Path, options: dict[str, object], title: str = 'tiny') -> Job:
    return Job(config=config, work_dir=work_dir, options=options, title=title)


def test_a_finished_run_is_not_repeated_and_a_changed_one_is(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    work_dir, options = tmp_path / 'run', tiny(folder)
    (checkpoint,) = train(job(SPARK_CONFIG, work_dir, options))
    made = checkpoint.stat().st_mtime_ns
    state = torch.load(checkpoint, map_location='cpu', weights_only=False)['state_dict']
    assert any(key.startswith('backbone.') for key in state)
    assert not any('teacher' in key for key in state)

    capsys.readouterr()
    assert train(job(SPARK_CONFIG, work_dir, options)) == [checkpoint]
    assert 'done before' in capsys.readouterr().out
    assert checkpoint.stat().st_mtime_ns == made

    extra = folder / 'nested0' / 'extra.png'
    Image.new('RGB', (64, 64)).save(extra)
    assert not job(SPARK_CONFIG, work_dir, options).done
    extra.unlink()

    # Not silently the old result: another mask ratio is another run, and this one is refused.
    changed = job(SPARK_CONFIG, work_dir, {**options, 'model.mask.ratio': 2.0})
    with pytest.raises(RuntimeError, match=r'(?s)tiny stopped.*model\.mask\.ratio must be'):
        train(changed)
    assert not checkpoint.exists()
    # The finished one was moved aside; what the refused one left is in nobody's way.
    aside = tmp_path / 'run.1'
    assert (aside / checkpoint.name).stat().st_mtime_ns == made
    with pytest.raises(RuntimeError, match=r'model\.mask\.ratio must be'):
        train(changed)
    assert sorted(p.name for p in tmp_path.glob('run*')) == ['run', 'run.1']


def test_a_folder_in_use_is_left_alone(folder: Path, tmp_path: Path) -> None:
    work_dir = tmp_path / 'run'
    with held(work_dir):
        work_dir.mkdir()
        (work_dir / 'output.log').write_text('the other run')
        with pytest.raises(BusyError, match='--work-dir'):
            train(job(SPARK_CONFIG, work_dir, tiny(folder)))
    assert (work_dir / 'output.log').read_text() == 'the other run'


def test_a_folder_is_held_from_the_start_to_the_end_of_a_training(
    folder: Path, tmp_path: Path
) -> None:
    first = job(SPARK_CONFIG, tmp_path / 'run', tiny(folder))
    process = first.start(1)
    with pytest.raises(BusyError, match='--work-dir'):
        job(SPARK_CONFIG, tmp_path / 'run', tiny(folder)).start(1)
    process.wait()
    first.finish(process, 0.0)
    assert first.done


def test_only_what_a_job_left_before_its_first_checkpoint_is_removed(
    folder: Path, tmp_path: Path
) -> None:
    work_dir = tmp_path / 'run'
    one = job(SPARK_CONFIG, work_dir, tiny(folder))
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


def test_a_teacher_is_trained_exported_and_loaded(folder: Path, tmp_path: Path) -> None:
    options = tiny(folder) | folder_options(folder, MAE_CONFIG)
    (checkpoint,) = train(job(MAE_CONFIG, tmp_path / 'run', options))
    weights = export(checkpoint, tmp_path / 'teacher.safetensors', {})
    init_default_scope('mmpretrain')
    settings = Config.fromfile(HGKD_CONFIG).model.teachers.mim
    for view, width in (('full', 192), ('visible', 192)):
        teacher = MODELS.build(settings | dict(checkpoint=str(weights), teacher_view=view))
        assert teacher.embed_dim == width
    state = torch.load(checkpoint, map_location='cpu', weights_only=False)['state_dict']
    want = state['backbone.patch_embed.projection.weight'].half().float()
    found = [v for k, v in teacher.state_dict().items() if k.endswith('projection.weight')]
    assert any(torch.equal(value, want) for value in found if value.shape == want.shape)


def test_the_labelled_teacher_starts_from_the_mae_and_is_a_teacher(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for _ in SceneFolder(out=tmp_path / 'scenes', train=24, val=12).write(workers=1):
        pass
    options = {
        'train_dataloader.batch_size': 12,
        'train_dataloader.num_workers': 0,
        'train_dataloader.persistent_workers': False,
        'train_cfg.max_epochs': 1,
        'train_cfg.val_interval': 1,
        'default_hooks.checkpoint.interval': 1,
    }
    how = dict(kind='supervised', data=tmp_path / 'scenes', options=options)
    weights = train_teacher(tmp_path / 'run', **how)
    with safe_open(weights, 'pt') as made, safe_open(TEACHERS['mae'].carried, 'pt') as start:
        for key in (f'backbone.layers.{layer}.attn.qkv.weight' for layer in range(6)):
            moved = (made.get_tensor(key) - start.get_tensor(key)).abs().max()
            # Two steps of a warm-up that begins at a thousandth of the learning rate.
            assert moved < 1e-3
    init_default_scope('mmpretrain')
    settings = Config.fromfile(HYBRID_CONFIG).model.teachers.cl
    teacher = MODELS.build(settings | dict(checkpoint=str(weights)))
    assert teacher.embed_dim == 192 and teacher.has_cls
    capsys.readouterr()
    train_teacher(tmp_path / 'run', **how)
    assert 'done before' in capsys.readouterr().out


def test_the_contrastive_teacher_needs_no_labels_and_is_a_teacher(
    folder: Path, tmp_path: Path
) -> None:
    options = tiny(folder)
    del options['train_dataloader.dataset']  # of one view
    weights = train_teacher(tmp_path / 'run', kind='contrastive', data=folder, options=options)
    assert all(key.startswith('backbone.') for key in load_file(weights))
    init_default_scope('mmpretrain')
    settings = Config.fromfile(HYBRID_CONFIG).model.teachers.cl
    for path in (weights, TEACHERS['contrastive'].carried):
        assert MODELS.build(settings | dict(checkpoint=str(path))).has_cls


def test_a_labelled_teacher_refuses_plain_images(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'images has no meta\.json'):
        train_teacher(tmp_path / 'run', kind='supervised', data=folder)


def test_two_runs_side_by_side(folder: Path, tmp_path: Path) -> None:
    first, second = (job(SPARK_CONFIG, tmp_path / name, tiny(folder), name) for name in 'ab')
    made = train(first, second)
    assert made == [first.checkpoint, second.checkpoint] and first.done and second.done
    broken = job(SPARK_CONFIG, tmp_path / 'c', tiny(folder) | {'model.mask.ratio': 2.0}, 'bad')
    fresh = job(SPARK_CONFIG, tmp_path / 'd', tiny(folder) | {'train_cfg.max_epochs': 500}, 'long')
    with pytest.raises(RuntimeError, match='bad stopped'):
        train(fresh, broken)
    assert not fresh.done and not fresh.checkpoint.exists()


def test_a_training_ends_with_the_tool_that_started_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, start = [], Job.start

    def start_and_be_told_to_stop(self: Job, threads: int) -> subprocess.Popen:
        started.append(start(self, threads))
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        return started[0]

    monkeypatch.setattr(Job, 'start', start_and_be_told_to_stop)
    before = signal.getsignal(signal.SIGTERM)
    options = tiny(folder) | {'train_cfg.max_epochs': 500}
    try:
        with pytest.raises(SystemExit, match=str(128 + signal.SIGTERM)):
            train(job(SPARK_CONFIG, tmp_path / 'run', options))
        assert started[0].poll() == -signal.SIGTERM
    finally:
        started[0].kill()
    assert signal.getsignal(signal.SIGTERM) is before


def test_too_few_images_for_one_batch_are_named(folder: Path, tmp_path: Path) -> None:
    options = (
        tiny(folder) | folder_options(folder, MAE_CONFIG) | {'train_dataloader.batch_size': 64}
    )
    with pytest.raises(RuntimeError, match='8 images .* do not fill one batch of 64'):
        train(job(MAE_CONFIG, tmp_path / 'run', options))


def test_an_empty_folder_stops_before_training(tmp_path: Path) -> None:
    (tmp_path / 'empty').mkdir()
    with pytest.raises((RuntimeError, FileNotFoundError, ValueError), match='(no|any) image'):
        train(job(SPARK_CONFIG, tmp_path / 'run', tiny(tmp_path / 'empty')))


def test_exported_weights_are_half_precision_without_pickle(tmp_path: Path) -> None:
    weight = torch.randn(3, 4)
    torch.save({'state_dict': {'backbone.w': weight}}, tmp_path / 'c.pth')
    path = export(tmp_path / 'c.pth', tmp_path / 'w.safetensors', {'seed': 3})
    with safe_open(path, 'pt') as file:
        assert torch.equal(file.get_tensor('backbone.w'), weight.half())
        assert json.loads(file.metadata()['facts']) == {'seed': 3}


def test_table_and_summary_hold_the_same_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    scores = {'random': Score(knn=12.34, linear=20.0), 'student': Score(knn=45.6, linear=56.7)}
    print_table(scores, classes=12)
    printed = capsys.readouterr().out
    for figure in ('12.3', '20.0', '45.6', '56.7', '8.3'):
        assert figure in printed
    write_summary(
        tmp_path / 's.json', scores, Config(dict(model=dict(a=1))), {'H-GKD': 1.234}, seed=4
    )
    record = json.loads((tmp_path / 's.json').read_text())
    assert record['scores']['student'] == {'knn': 45.6, 'linear': 56.7}
    assert record['seed'] == 4 and record['seconds'] == {'H-GKD': 1.2}
    assert record['config'] == {'model': {'a': 1}}
    assert record['versions']['torch'] == torch.__version__
