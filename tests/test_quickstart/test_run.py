"""The quickstart from end to end, on 72 scenes and for one epoch."""

import json
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from PIL import Image

import hgkd_mm.models  # noqa: F401  registers
from hgkd_mm.quickstart import pretraining, run
from hgkd_mm.quickstart.teacher import CARRIED
from hgkd_mm.scenes import SceneFolder
from hgkd_mm.utils.launch import override

QUICK = {
    'train_dataloader.batch_size': 24,
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'train_cfg.max_epochs': 1,
    'default_hooks.checkpoint.interval': 1,
    'default_hooks.logger.interval': 1,
}


@pytest.fixture
def scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / 'scenes'
    for _ in SceneFolder(out=folder, train=72, val=24).write(workers=1):
        pass
    for module in (run, pretraining):
        monkeypatch.setattr(module, 'SCENES', folder)
    monkeypatch.setattr(pretraining, 'make_scenes', lambda _: None)
    return folder


def test_it_leaves_a_table_a_summary_a_picture_and_a_student(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    work_dir, setup = tmp_path / 'work', tmp_path / 'hgkd_setup.json'
    times = {'download_s': 40, 'install_s': 150, 'mmcv_s': 14, 'total_s': 204}
    setup.write_text(json.dumps(times))
    result = run.quickstart(work_dir=work_dir, bank=72, seed=3, options=dict(QUICK), setup=setup)
    scores = result.scores
    assert list(scores) == [
        'random-init student',
        'pixel baseline (SparK)',
        'H-GKD student',
        'teacher (MAE)',
    ]
    assert 'H-GKD student' in capsys.readouterr().out
    summary = json.loads((work_dir / 'summary.json').read_text())
    assert summary['seed'] == 3
    assert summary['setup_seconds'] == times
    assert set(summary['seconds']) == {'scenes', 'teacher', 'both students', 'evaluation'}
    assert summary['scores']['H-GKD student']['knn'] == scores['H-GKD student'].knn
    assert {'torch', 'mmengine', 'mmcv', 'mmpretrain', 'commit'} <= set(summary['versions'])
    assert summary['labelled_images'] == {'train': 72, 'val': 24}
    assert (work_dir / 'hgkd/last.pth').resolve() == Path(summary['student']).resolve()
    with Image.open(work_dir / 'quickstart.png') as picture:
        assert picture.width > 500
    assert result.students == {
        'pixel baseline (SparK)': work_dir / 'spark' / 'epoch_1.pth',
        'H-GKD student': work_dir / 'hgkd' / 'epoch_1.pth',
    }
    assert all(path.is_file() for path in result.students.values())


def test_a_missing_teacher_is_noticed_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretraining, 'CARRIED', tmp_path / 'absent.safetensors')
    monkeypatch.setattr(pretraining, 'make_scenes', lambda _: pytest.fail('work was begun'))
    with pytest.raises(FileNotFoundError, match='--train-teacher'):
        run.quickstart(work_dir=tmp_path)


def test_the_carried_teacher_fits_the_config_and_is_small() -> None:
    init_default_scope('mmpretrain')
    config = Config.fromfile(pretraining.HGKD_CONFIG).model.teachers.mim
    config.checkpoint = str(CARRIED)
    teacher = MODELS.build(config)
    assert teacher.embed_dim == 192 and teacher.grid((96, 96)) == (6, 6)
    assert CARRIED.stat().st_size < 10e6


def test_epochs_are_set_wherever_the_configs_have_them() -> None:
    for path in (pretraining.HGKD_CONFIG, pretraining.SPARK_CONFIG):
        config = Config.fromfile(path)
        override(config, dict.fromkeys(pretraining.EPOCH_KEYS, 7))
        schedule = config.param_scheduler[1]
        assert (config.train_cfg.max_epochs, schedule.T_max, schedule.end) == (7, 7, 7)
        assert config.default_hooks.checkpoint.interval == 7


def test_one_epoch_warms_up_for_a_tenth_of_its_steps() -> None:
    for path in (pretraining.HGKD_CONFIG, pretraining.SPARK_CONFIG):
        config = Config.fromfile(path)
        override(config, pretraining.ONE_EPOCH)
        warm_up = config.param_scheduler[0]
        assert (warm_up.type, warm_up.by_epoch, warm_up.end) == ('LinearLR', False, 20)
        assert config.optim_wrapper.optimizer.lr == 2e-3
