"""The quickstart from end to end, on a handful of Scenes and for one epoch."""

import ast
import json
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from PIL import Image

from hgkd_mm.experiments import quickstart, students
from hgkd_mm.experiments.evaluation import Score
from hgkd_mm.utils.launch import override

pytestmark = pytest.mark.slow

TIMES = {'download_s': 40, 'install_s': 150, 'mmcv_s': 14, 'total_s': 204}
TOOLS = Path(__file__).parents[2] / 'tools'


def test_it_leaves_a_table_a_summary_a_picture_and_a_student(
    scenes: Path,
    tiny: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    for module in (quickstart, students):
        monkeypatch.setattr(module, 'SCENES', scenes)
    monkeypatch.setattr(students, 'make_scenes', lambda *_, **__: None)
    work_dir, setup = tmp_path / 'work', tmp_path / 'hgkd_setup.json'
    setup.write_text(json.dumps(TIMES))
    del tiny['train_dataloader.dataset']
    options = tiny | {'train_dataloader.batch_size': 80}
    scores, made = quickstart.quickstart(
        work_dir=work_dir, bank=72, seed=3, options=options, setup=setup
    )
    assert list(scores) == [
        'random-init student',
        'pixel baseline (SparK)',
        'H-GKD student',
        'teacher (MAE)',
    ]
    assert 'H-GKD student' in capsys.readouterr().out
    summary = json.loads((work_dir / 'summary.json').read_text())
    assert summary['seed'] == 3
    assert summary['setup_seconds'] == TIMES
    assert set(summary['seconds']) == {'scenes', 'teacher', 'both students', 'evaluation'}
    assert summary['scores']['H-GKD student']['knn'] == scores['H-GKD student'].knn
    assert {'torch', 'mmengine', 'mmcv', 'mmpretrain', 'commit'} <= set(summary['versions'])
    assert summary['labelled_images'] == {'train': 72, 'val': 12}
    assert (work_dir / 'hgkd/last.pth').resolve() == Path(summary['student']).resolve()
    with Image.open(work_dir / 'quickstart.png') as picture:
        assert picture.width > 500
    assert made.checkpoints == {
        'pixel baseline (SparK)': work_dir / 'spark' / 'epoch_1.pth',
        'H-GKD student': work_dir / 'hgkd' / 'epoch_1.pth',
    }
    assert all(path.is_file() for path in made.checkpoints.values())


def test_a_missing_teacher_is_noticed_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(students, 'CARRIED', tmp_path / 'absent.safetensors')
    monkeypatch.setattr(students, 'make_scenes', lambda *_, **__: pytest.fail('work was begun'))
    with pytest.raises(FileNotFoundError, match='--train-teacher'):
        quickstart.quickstart(work_dir=tmp_path)


@pytest.mark.parametrize('path', [students.HGKD_CONFIG, students.SPARK_CONFIG])
def test_epochs_and_warm_up_are_set_wherever_the_configs_have_them(path: Path) -> None:
    config = Config.fromfile(path)
    override(config, dict.fromkeys(students.EPOCH_KEYS, 7) | students.ONE_EPOCH)
    warm_up, schedule = config.param_scheduler[:2]
    assert (config.train_cfg.max_epochs, schedule.T_max, schedule.end) == (7, 7, 7)
    assert config.default_hooks.checkpoint.interval == 7
    assert (warm_up.type, warm_up.by_epoch, warm_up.end) == ('LinearLR', False, 20)
    assert config.optim_wrapper.optimizer.lr == 2e-3


def test_times_of_the_set_up(tmp_path: Path) -> None:
    path = tmp_path / 'hgkd_setup.json'
    path.write_text(json.dumps(TIMES))
    assert quickstart.setup_times(path) == TIMES
    assert set(quickstart.setup_times(None).values()) == {0}
    for held in ([], {'total_s': 1}):
        path.write_text(json.dumps(held))
        with pytest.raises(ValueError, match='HGKD_SETUP_TIMES.*download_s.*total_s'):
            quickstart.setup_times(path)


def test_table_and_summary_hold_the_same_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    scores = {'random': Score(knn=12.34, linear=20.0), 'student': Score(knn=45.6, linear=56.7)}
    quickstart.print_table(scores)
    printed = capsys.readouterr().out
    for figure in ('12.3', '20.0', '45.6', '56.7', '8.3'):
        assert figure in printed
    quickstart.write_summary(
        tmp_path / 's.json', scores, Config(dict(model=dict(a=1))), {'H-GKD': 1.234}, seed=4
    )
    record = json.loads((tmp_path / 's.json').read_text())
    assert record['scores']['student'] == {'knn': 45.6, 'linear': 56.7}
    assert record['seed'] == 4 and record['seconds'] == {'H-GKD': 1.2}
    assert record['config'] == {'model': {'a': 1}}
    assert record['versions']['torch'] == torch.__version__


def test_the_script_names_the_flags_of_the_tool() -> None:
    usage = (TOOLS / 'quickstart.sh').read_text().splitlines()[2]
    tool = ast.get_docstring(ast.parse((TOOLS / 'quickstart.py').read_text()))
    flags = set(re.findall(r'--[a-z-]+', tool))
    assert flags and flags <= set(re.findall(r'--[a-z-]+', usage))
