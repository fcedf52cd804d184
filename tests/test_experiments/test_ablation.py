"""An ablation on a handful of Scenes: its list, its equal steps, one run in earnest."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from hgkd_mm.experiments.ablation import (
    UNTRAINED,
    ablate,
    main,
    pretraining_jobs,
    read_variants,
)
from hgkd_mm.utils.launch import override
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


def test_the_list_on_scenes_has_the_rows_that_were_asked_for() -> None:
    variants = {variant.name: variant for variant in read_variants(SCENES_ABLATION)}
    heads = {}
    for name, variant in variants.items():
        config = Config.fromfile(variant.config)
        override(config, variant.options)
        heads[name] = {key for key, head in config.model.heads.items() if head is not None}
    everything = {'feat', 'sim', 'cl_feat', 'cl_sim', 'relation'}
    assert heads == {
        'pixel baseline (SparK)': {'pixel'},
        'L_feat': {'feat'},
        'L_sim': {'sim'},
        'L_feat + L_sim (H-GKD)': {'feat', 'sim'},
        '+ second teacher': {'feat', 'sim', 'cl_feat', 'cl_sim'},
        '+ second teacher, no labels': {'feat', 'sim', 'cl_feat', 'cl_sim'},
        '+ relations, one teacher': {'feat', 'sim', 'relation'},
        '+ second teacher + relations': everything,
    }


def test_all_rows_on_scenes_take_the_same_steps(scenes: Path, tmp_path: Path) -> None:
    variants = read_variants(SCENES_ABLATION)
    data = {'train_dataloader.dataset.data_root': str(scenes)}
    jobs = pretraining_jobs(variants, work_dir=tmp_path, seed=3, options=data)
    assert len({job.work_dir for job in jobs.values()}) == len(variants) == 8
    assert {job.iterations for job in jobs.values()} == {4 * 8}  # 8 batches hold 240 images
    assert all(job.settings.randomness.seed == 3 for job in jobs.values())


@pytest.mark.parametrize(
    ('options', 'told'),
    [
        ({'train_cfg.max_epochs': 5}, r"'other': \(40, 32\)"),
        ({}, "'student' and 'other'"),
        ({'model.heads.sims': None}, 'model.heads.sims=None'),
    ],
)
def test_rows_that_make_no_table_are_refused(
    options: dict, told: str, scenes: Path, tmp_path: Path
) -> None:
    rows = [dict(name=name, config=STUDENT) for name in ('student', 'other')]
    rows[1]['options'] = options
    data = {'train_dataloader.dataset.data_root': str(scenes)}
    variants = read_variants(write(tmp_path / 'list.py', rows))
    with pytest.raises(ValueError, match=told):
        pretraining_jobs(variants, work_dir=tmp_path, seed=0, options=data)


def test_every_row_is_trained_once_and_scored(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = {'train_cfg.max_epochs': 1, 'default_hooks.checkpoint.interval': 1}
    alone = short | {'model.heads.sim': None}
    listed = [
        dict(name='both', config=STUDENT, options=short),
        dict(name='L_feat', config=STUDENT, options=alone),
    ]
    variants = read_variants(write(tmp_path / 'list.py', listed))
    how = dict(work_dir=tmp_path / 'out', seed=0, scenes=scenes, bank=240, length=1 / 200)
    table = ablate(variants, **how, options=TINY)
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
    assert ablate(variants, **how, options=TINY) == table
    assert capsys.readouterr().out.count('done before') == 5


def test_the_tool_names_a_row_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, 'argv', ['ablate.py', str(SCENES_ABLATION), '--only', 'L_faet'])
    with pytest.raises(SystemExit, match=r"ablate: --only names \['L_faet'\]"):
        main()


@pytest.mark.parametrize(
    ('variants', 'error', 'sentence'),
    [
        ([], ValueError, 'has no variants'),
        ([dict(name='a', config='configs/no.py')], FileNotFoundError, "'a' names .*no.py"),
        ([dict(name='a', config='README.md')] * 2, ValueError, 'one name'),
    ],
)
def test_a_bad_list_is_refused(
    tmp_path: Path, variants: list[dict], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        read_variants(write(tmp_path / 'list.py', variants))
    with pytest.raises(FileNotFoundError, match='no list of variants'):
        read_variants(tmp_path / 'none.py')
