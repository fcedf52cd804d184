from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from hgkd_mm.doctor import Section, examine, look_at_config
from hgkd_mm.utils import env_check, launch, mmcv_ops

ROOT = Path(__file__).resolve().parents[2]
SCENES = str(ROOT / 'configs/pretrain/hgkd_r18_scenes.py')
examining = sys.modules['hgkd_mm.doctor.examine']


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examining, 'probes_apart', lambda root: Section(title='What runs'))


def test_what_the_quickstart_runs_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    section = look_at_config(SCENES, build=True)
    # the data set is made by the quickstart, and need not be here
    assert all('no folder data/scenes' in problem for problem in section.problems)
    facts = dict(section.facts)
    assert facts['model'].startswith('HGKD is built, ')
    assert facts['optimizer'].startswith('AdamW is built, ')
    assert facts['model.teachers.mim'].startswith("MIMTeacher, view 'visible'")


def test_nothing_is_written_and_all_that_is_missing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    section = look_at_config(SCENES, build=True)
    data, teacher = section.problems
    assert data.startswith('There is no folder data/scenes/')
    assert teacher.startswith('model.teachers.mim: There is no teacher checkpoint at assets/')
    assert section.notes == [
        'The model was not built: the weights of model.teachers.mim are not here.'
    ]
    assert list(tmp_path.iterdir()) == []


def test_options_are_those_of_train_py(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    options = [
        'train_dataloader.dataset.data_root=/no/such/folder',
        'train_dataloader.batch_size=7',
    ]
    section = look_at_config(SCENES, options)
    assert any('no folder /no/such/folder' in problem for problem in section.problems)
    assert dict(section.facts)['images a step'].startswith('7 images x ')


@pytest.mark.parametrize(
    ('content', 'sentence'),
    [
        (None, 'FileNotFoundError: There is no config file'),
        ('a = (', 'cannot be read (SyntaxError: '),
        ("_base_ = './no.py'", 'cannot be read (FileNotFoundError'),
        (
            "custom_imports = dict(imports=['no_such_module'], allow_failed_imports=False)",
            "needs a module that cannot be imported (No module named 'no_such_module'): install it",
        ),
    ],
)
def test_unreadable_config(content: str | None, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / 'a.py'
    if content is not None:
        path.write_text(content)
    (problem,) = look_at_config(str(path)).problems
    assert problem.startswith(f'The config {path} ')
    assert sentence in problem


def test_model_that_cannot_be_built(tmp_path: Path) -> None:
    path = tmp_path / 'a.py'
    path.write_text(
        "default_scope = 'mmpretrain'\n"
        "model = dict(type='ImageClassifier', backbone=dict(type='ResNet', depth=19))\n"
        f"work_dir = '{tmp_path}'\n"
    )
    (problem,) = look_at_config(str(path), build=True).problems
    assert problem.startswith('Building its model failed (KeyError: ')
    assert 'invalid depth 19' in problem
    assert problem.endswith(': correct the config there.')


def test_packages_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'hgkd_mm.models', None)
    (problem,) = look_at_config(SCENES).problems
    assert problem.startswith('Importing mmengine, mmpretrain and hgkd_mm failed (')
    assert problem.endswith('The config is not looked at before that.')


def test_sections_in_order(short: None) -> None:
    titles = [section.title for section in examine(root=ROOT, configs=['no.py'])]
    assert titles == ['Machine', 'Packages', 'What runs', 'Config no.py']


def test_cure_of_the_second_stack(short: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env_check, 'installed_versions', lambda: {'mmcv': '2.1.0'})
    packages = list(examine(root=ROOT))[1]
    assert packages.problems
    assert all('`bash tools/setup_env.sh --stack openmmlab`' in p for p in packages.problems)


def test_config_of_a_detector_without_ops(short: None, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {'mmcv-lite': '2.1.0'}
    monkeypatch.setattr(env_check, 'installed_versions', lambda: installed)
    monkeypatch.setattr(mmcv_ops, 'installed_versions', lambda: installed)
    for module in (mmcv_ops, launch):
        monkeypatch.setattr(module, 'has_ops', lambda: False)
    detector, student = [
        section.problems
        for config in ('configs/det/mask-rcnn_r50_fpn_1x_coco.py', SCENES)
        for section in list(examine(root=ROOT, configs=[str(ROOT / config)]))[3:]
    ]
    (problem,) = detector
    assert problem.startswith('MMDetection, which ')
    assert '`bash tools/setup_env.sh --stack openmmlab --ops` compiles them' in problem
    assert not any('ops' in problem for problem in student)


@pytest.mark.parametrize(
    ('problems', 'status', 'last'),
    [([], 0, 'No problem found.'), (['A.', 'B.'], 1, '2 problem(s), each with its cure above.')],
)
def test_tool(
    problems: list[str],
    status: int,
    last: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    spec = importlib.util.spec_from_file_location('doctor_tool', ROOT / 'tools/doctor.py')
    tool = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, 'path', [*sys.path])
    spec.loader.exec_module(tool)
    asked = {}

    def report(**arguments: object) -> list[Section]:
        asked.update(arguments)
        return [Section(title='Config a.py', problems=problems)]

    monkeypatch.setattr(tool, 'examine', report)
    monkeypatch.setattr(sys, 'argv', ['doctor.py', 'a.py', '--build', '--cfg-options', 'x=1'])
    assert tool.main() == status
    assert asked == dict(root=ROOT, configs=['a.py'], options=['x=1'], build=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == 'Config a.py'
    assert lines[-1] == last

    monkeypatch.setattr(sys, 'argv', ['doctor.py', '--cfg-options', 'x'])
    with pytest.raises(SystemExit):
        tool.main()
    assert "takes KEY=VALUE, not 'x'" in capsys.readouterr().err
