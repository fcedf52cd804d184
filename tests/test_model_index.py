"""model-index.yml and the metafiles against the configs, and as their readers load them."""

from __future__ import annotations

import ast
import functools
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml
from mmengine.config import Config
from mmpretrain.apis.model import ModelHub
from modelindex.load_model_index import load

ROOT = Path(__file__).parents[1]
FOLDERS = ('pretrain', 'cls', 'det', 'seg')
METAFILES = {
    name: yaml.safe_load((ROOT / 'configs' / name / 'metafile.yml').read_text()) for name in FOLDERS
}
MODELS = {model['Name']: model for file in METAFILES.values() for model in file['Models']}
# What tools/quickstart.sh and tools/train_teacher.py call their runs.
RUNS = {
    'hgkd': 'hgkd_r18_scenes',
    'teacher-supervised': 'mae_scenes',
    'teacher-contrastive': 'mae_scenes',
}
TRANSFER = 'see docs/transfer.md'
# Pre-trainings whose configs are another change; from when they have entries, these count.
AWAITED = {'hybrid_vit-b_mae-clip', 'hybrid_vit-l_mae-clip'} - set(MODELS)


@functools.cache
def load_config(name: str) -> Config:
    return Config.fromfile(ROOT / MODELS[name]['Config'], import_custom_modules=False)


def header(name: str) -> str:
    return ast.get_docstring(ast.parse((ROOT / MODELS[name]['Config']).read_text())) or ''


def belongs_to_the_table(name: str) -> bool:
    """Whether a config is one of the transfer table's jobs on Scenes."""
    return re.search(rf'^Metric: +{TRANSFER}', header(name), re.MULTILINE) is not None


def metrics(name: str) -> list[float | str]:
    results = MODELS[name]['Results']
    return [value for result in results for value in result['Metrics'].values()]


def test_index_imports_every_metafile() -> None:
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    found = sorted(ROOT.glob('configs/*/metafile.yml'))
    assert sorted(ROOT / path for path in index['Import']) == found


def test_every_config_has_one_entry() -> None:
    names = Counter(model['Name'] for file in METAFILES.values() for model in file['Models'])
    assert set(names.values()) == {1}
    configs = {
        str(p.relative_to(ROOT)) for f in FOLDERS for p in (ROOT / 'configs' / f).glob('*.py')
    }
    assert {model['Config'] for model in MODELS.values()} == configs
    for folder, file in METAFILES.items():
        for model in file['Models']:
            assert model['Config'] == f'configs/{folder}/{model["Name"]}.py'


@pytest.mark.parametrize('name', MODELS)
def test_numbers_are_those_of_the_config(name: str) -> None:
    config, metadata = load_config(name), MODELS[name]['Metadata']
    gpus = re.search(r'^Hardware: +(\d+) (GPUs|CPU cores)', header(name), re.MULTILINE)
    number, unit = gpus.groups()
    processes = int(number) if unit == 'GPUs' else 1
    assert metadata['Batch Size'] == processes * config.train_dataloader.batch_size
    assert metadata['Training Resources'].startswith(f'{number} {unit}')
    length = {'Epochs': config.train_cfg.get('max_epochs')}
    if 'max_iters' in config.train_cfg:
        # how long the jobs of the transfer table are is its own option
        length = {} if belongs_to_the_table(name) else {'Iterations': config.train_cfg.max_iters}
    assert {k: v for k, v in metadata.items() if k in ('Epochs', 'Iterations')} == length


@pytest.mark.parametrize('name', MODELS)
def test_a_result_is_a_number_or_says_that_there_is_none(name: str) -> None:
    assert MODELS[name]['Weights'] is None
    values = metrics(name)
    assert values
    for value in values:
        if isinstance(value, str):
            assert value == (TRANSFER if belongs_to_the_table(name) else 'not run')
        else:
            assert name.endswith('_scenes')


def test_what_the_header_calls_not_run_has_no_figure() -> None:
    not_run = [name for name in MODELS if re.search(r'^Metric: +not run', header(name), re.M)]
    assert len(not_run) > 30
    assert all(metrics(name) == ['not run'] * len(metrics(name)) for name in not_run)
    assert all('planned' in MODELS[name]['Metadata']['Training Resources'] for name in not_run)


def test_figures_are_the_readmes() -> None:
    readme = (ROOT / 'README.md').read_text()
    table = readme.split('**Quickstart**')[1].split('**Transfer**')[0]
    rows = {
        cells[1].strip(' *').split(' (')[0]: [cell.strip(' *') for cell in cells[2:4]]
        for cells in (line.split('|') for line in table.splitlines())
        if len(cells) > 3
    }
    for name, row in {
        'hgkd_r18_scenes': 'H-GKD student',
        'spark_r18_scenes': 'pixel baseline',
        'mae_scenes': 'teacher',
    }.items():
        assert [str(value) for value in metrics(name)] == rows[row]


def test_downstream_is_what_starts_from_the_model() -> None:
    starts: dict[str, set[str]] = {}
    for name in MODELS:
        init = load_config(name).model.backbone.get('init_cfg')
        run = re.search(r'work_dirs/(?:.*/)?([^/]+)/[^/]+$', str(init))
        if run:
            starts.setdefault(RUNS.get(run.group(1), run.group(1)), set()).add(name)
    listed = {
        name: set(model['Downstream']) for name, model in MODELS.items() if 'Downstream' in model
    }
    assert listed == {run: names for run, names in starts.items() if run not in AWAITED}
    assert len(listed['hgkd_r50_mae']) > 5


def test_collections() -> None:
    collections = [c for file in METAFILES.values() for c in file['Collections']]
    assert {model['In Collection'] for model in MODELS.values()} == {c['Name'] for c in collections}
    for collection in collections:
        assert (ROOT / collection['README']).is_file()
        assert collection['Paper']['URL'].startswith('https://arxiv.org/abs/')


def test_readers_load_it(monkeypatch: pytest.MonkeyPatch) -> None:
    index = load(str(ROOT / 'model-index.yml'))
    index.build_models_with_collections()
    flagship = next(model for model in index.models if model.name == 'hgkd_r50_mae').full_model
    assert 'Knowledge Distillation' in flagship.metadata.data['Training Techniques']
    assert flagship.results[0].metrics == {'kNN Top 1 Accuracy': 'not run'}

    monkeypatch.setattr(ModelHub, '_models_dict', {})
    ModelHub.register_model_index(ROOT / 'model-index.yml', config_prefix=ROOT)
    assert set(ModelHub._models_dict) == {name.lower() for name in MODELS}
    assert ModelHub._models_dict['hgkd_r50_mae'].config == str(
        ROOT / 'configs/pretrain/hgkd_r50_mae.py'
    )
