"""The quickstart from end to end, on a handful of Scenes and for one epoch."""

import ast
import json
import re
from pathlib import Path

import pytest
from mmengine.config import Config
from PIL import Image

from hgkd_mm.experiments import quickstart, students
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
    scores, jobs = quickstart.quickstart(
        work_dir=work_dir, bank=72, seed=3, options=options, setup=setup
    )
    assert list(scores) == [
        'random-init student',
        'pixel baseline (SparK)',
        'H-GKD student',
        'teacher (MAE)',
    ]
    best, printed = scores['H-GKD student'], capsys.readouterr().out
    assert f'{best["kNN"]:.1f}' in printed and '8.3' in printed
    summary = json.loads((work_dir / 'summary.json').read_text())
    assert summary['seed'] == 3
    assert summary['setup_seconds'] == TIMES
    assert set(summary['seconds']) == {'scenes', 'teacher', 'both students', 'evaluation'}
    assert summary['scores']['H-GKD student'] == {
        'knn': best['kNN'], 'linear': best['linear probe']
    }  # fmt: skip
    assert {'torch', 'mmengine', 'mmcv', 'mmpretrain', 'commit'} <= set(summary['versions'])
    assert summary['labelled_images'] == {'train': 72, 'val': 12}
    assert (work_dir / 'hgkd/last.pth').resolve() == Path(summary['student']).resolve()
    with Image.open(work_dir / 'quickstart.png') as picture:
        assert picture.width > 500
    assert {title: job.checkpoint for title, job in jobs.items()} == {
        'pixel baseline (SparK)': work_dir / 'spark' / 'epoch_1.pth',
        'H-GKD student': work_dir / 'hgkd' / 'epoch_1.pth',
    }
    assert all(job.done for job in jobs.values())


@pytest.mark.parametrize('path', [students.HGKD_CONFIG, students.SPARK_CONFIG])
def test_epochs_and_warm_up_are_set_wherever_the_configs_have_them(path: Path) -> None:
    config = Config.fromfile(path)
    override(config, dict.fromkeys(students.EPOCH_KEYS, 7) | students.ONE_EPOCH)
    warm_up, schedule = config.param_scheduler[:2]
    assert (config.train_cfg.max_epochs, schedule.T_max, schedule.end) == (7, 7, 7)
    assert config.default_hooks.checkpoint.interval == 7
    assert (warm_up.type, warm_up.by_epoch, warm_up.end) == ('LinearLR', False, 20)
    assert config.optim_wrapper.optimizer.lr == 2e-3


def test_the_script_names_the_flags_of_the_tool() -> None:
    usage = (TOOLS / 'quickstart.sh').read_text().splitlines()[2]
    tool = ast.get_docstring(ast.parse((TOOLS / 'quickstart.py').read_text()))
    flags = set(re.findall(r'--[a-z-]+', tool))
    assert flags and flags <= set(re.findall(r'--[a-z-]+', usage))
