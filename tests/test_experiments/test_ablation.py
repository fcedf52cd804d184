"""An ablation on a handful of Scenes: its list, its equal steps, one run in earnest."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hgkd_mm.experiments import ablation
from hgkd_mm.experiments.ablation import UNTRAINED, ablate, main, pretraining_jobs
from hgkd_mm.utils.work_dir import read_scalars

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STUDENT = 'configs/pretrain/hgkd_r18_scenes.py'
SCENES_ABLATION = ROOT / 'configs/_base_/ablations/r18_scenes.py'
TINY = {
    'train_dataloader.batch_size': 48,
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'default_hooks.logger.interval': 1,
}


def write(path: Path, variants: list[dict]) -> Path:
    path.write_text(f'variants = {variants!r}\n')
    return path


def test_the_rows_on_scenes_have_their_heads_and_the_same_steps(
    scenes: Path, tmp_path: Path
) -> None:
    data = {'train_dataloader.dataset.data_root': str(scenes)}
    jobs = pretraining_jobs(SCENES_ABLATION, work_dir=tmp_path, seed=3, options=data)
    everything = {'feat', 'sim', 'cl_feat', 'cl_sim', 'relation'}
    assert {
        name: {key for key, head in job.settings.model.heads.items() if head is not None}
        for name, job in jobs.items()
    } == {
        'pixel baseline (SparK)': {'pixel'},
        'L_feat': {'feat'},
        'L_sim': {'sim'},
        'L_feat + L_sim (H-GKD)': {'feat', 'sim'},
        '+ second teacher': {'feat', 'sim', 'cl_feat', 'cl_sim'},
        '+ second teacher, no labels': {'feat', 'sim', 'cl_feat', 'cl_sim'},
        '+ relations, one teacher': {'feat', 'sim', 'relation'},
        '+ second teacher + relations': everything,
    }
    assert len({job.work_dir for job in jobs.values()}) == 8
    assert {job.iterations for job in jobs.values()} == {4 * 8}  # 8 batches hold 240 images
    assert all(job.settings.randomness.seed == 3 for job in jobs.values())


@pytest.mark.parametrize(
    ('name', 'options', 'told'),
    [
        ('other', {'train_cfg.max_epochs': 5}, r"'other': \(40, 32\)"),
        ('other', {'model.heads.sims': None}, 'model.heads.sims=None'),
        ('student', {}, 'one name'),
    ],
)
def test_rows_that_make_no_table_are_refused(
    name: str, options: dict, told: str, scenes: Path, tmp_path: Path
) -> None:
    rows = [dict(name='student', config=STUDENT), dict(name=name, config=STUDENT, options=options)]
    data = {'train_dataloader.dataset.data_root': str(scenes)}
    with pytest.raises(ValueError, match=told):
        path = write(tmp_path / 'list.py', rows)
        pretraining_jobs(path, work_dir=tmp_path, seed=0, options=data)


def test_every_row_is_trained_once_and_scored(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = {'train_cfg.max_epochs': 1, 'default_hooks.checkpoint.interval': 1}
    alone = short | {'model.heads.sim': None}
    listed = [
        dict(name='both', config=STUDENT, options=short),
        dict(name='L_feat', config=STUDENT, options=alone),
    ]
    path = write(tmp_path / 'list.py', listed)
    options = TINY | {'train_dataloader.dataset.data_root': str(scenes)}
    jobs = pretraining_jobs(path, work_dir=tmp_path / 'out/pretrain', seed=0, options=options)
    how = dict(work_dir=tmp_path / 'out', seed=0, scenes=scenes, bank=72, length=1 / 200)
    table = ablate(jobs, **how, options=TINY)
    assert list(table) == [UNTRAINED, 'both', 'L_feat']
    columns = ['kNN', 'linear probe', 'top-1, 5 % of labels']
    assert all(list(row) == columns for row in table.values())
    assert all(0 <= value <= 100 for row in table.values() for value in row.values())
    terms = {
        name: {
            key for key in read_scalars(tmp_path / 'out/pretrain' / name) if key.startswith('loss_')
        }
        for name in ('both', 'l-feat')
    }
    assert terms == {'both': {'loss_feat', 'loss_sim'}, 'l-feat': {'loss_feat'}}
    capsys.readouterr()
    assert ablate(jobs, **how, options=TINY) == table
    assert capsys.readouterr().out.count('done before') == 5


def test_the_tool_names_a_row_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation, 'make_scenes', lambda *_, **__: None)
    monkeypatch.setattr(ablation, 'pretraining_jobs', lambda *_, **__: {'L_feat': None})
    words = [str(SCENES_ABLATION), '--only', 'L_faet', '--work-dir', str(tmp_path / 'work')]
    monkeypatch.setattr(sys, 'argv', ['ablate.py', *words])
    with pytest.raises(SystemExit, match=r"ablate: --only names \['L_faet'\]"):
        main()
