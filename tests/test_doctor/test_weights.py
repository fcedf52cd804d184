from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.model import Sequential
from mmengine.registry import DefaultScope
from torch import nn

import hgkd_mm.models  # noqa: F401  (registers)
from hgkd_mm.doctor import Section
from hgkd_mm.doctor.urls import unreachable
from hgkd_mm.doctor.weights import look_at_checkpoints, look_at_teachers

ROOT = Path(__file__).resolve().parents[2]
# What assets/README.md says of the file.
TEACHER = dict(
    type='MIMTeacher',
    family='mae',
    arch=dict(embed_dims=192, num_layers=6, num_heads=3, feedforward_channels=768),
    img_size=96,
    checkpoint=str(ROOT / 'assets/mae_scenes.safetensors'),
)


class Answers(BaseHTTPRequestHandler):
    """Answers by the number in the path and writes down what it is asked."""

    asked: list[str] = []

    def do_HEAD(self) -> None:  # noqa: N802
        self.asked.append(f'HEAD {self.path}')
        self.send_response(int(self.path.split('/')[1]))
        self.end_headers()

    def do_GET(self) -> None:  # noqa: N802
        self.asked.append(f'GET {self.path}')
        self.send_error(500)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Answers.asked = []
    with HTTPServer(('127.0.0.1', 0), Answers) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs=dict(poll_interval=0.01))
        thread.start()
        yield f'http://127.0.0.1:{http.server_port}'
        http.shutdown()
        thread.join()


@pytest.fixture
def nowhere() -> str:
    """An address at which nobody listens."""
    with HTTPServer(('127.0.0.1', 0), Answers) as http:
        return f'http://127.0.0.1:{http.server_port}/weights-0123abcd.pth'


@pytest.fixture(autouse=True)
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'hub'))
    monkeypatch.setattr(torch.hub, '_hub_dir', None)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def teachers(**changes: Any) -> Section:
    section = Section(title='c')
    config = Config(dict(model=dict(type='HGKD', teachers=dict(mim={**TEACHER, **changes}))))
    look_at_teachers(section, config)
    return section


def checkpoints(**parts: Any) -> Section:
    section = Section(title='c')
    look_at_checkpoints(section, Config(parts))
    return section


def pretrained(checkpoint: str, **settings: Any) -> dict:
    return dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=checkpoint, **settings)))


def test_teacher_that_loads() -> None:
    section = teachers()
    assert section.problems == section.notes == []
    ((key, value),) = section.facts
    assert key == 'model.teachers.mim'
    assert value.startswith("MIMTeacher, view 'full', width 192, 2.8 M weights loaded from ")


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        (dict(checkpoint='work_dirs/no.pth'), 'There is no checkpoint at work_dirs/no.pth'),
        (dict(checkpoint=None), 'config key checkpoint is None'),
        (dict(arch='b'), 'does not fit the encoder of the teacher'),
        (dict(family='beit'), 'does not fit the encoder of the teacher'),
        (dict(family='vae'), 'family'),
        (dict(img_size=90), 'img_size=90 does not divide into patches'),
    ],
)
def test_wrong_teacher(changes: dict, sentence: str) -> None:
    section = teachers(**changes)
    (problem,) = section.problems
    assert problem.startswith('model.teachers.mim: ')
    assert sentence in problem
    assert section.facts == []


def test_damaged_teacher(tmp_path: Path) -> None:
    (tmp_path / 't.safetensors').write_bytes(b'no weights')
    (problem,) = teachers(checkpoint='t.safetensors').problems
    assert 'The checkpoint t.safetensors is not a readable weight file' in problem


def test_address_in_the_cache_is_not_asked_for(nowhere: str, tmp_path: Path) -> None:
    folder = tmp_path / 'hub/hub/checkpoints'
    folder.mkdir(parents=True)
    (folder / 'weights-0123abcd.safetensors').symlink_to(TEACHER['checkpoint'])
    section = teachers(checkpoint=nowhere.replace('.pth', '.safetensors'))
    assert section.problems == []
    assert len(section.facts) == 1


def test_address_that_answers(server: str, tmp_path: Path) -> None:
    section = teachers(checkpoint=f'{server}/200/weights.pth')
    assert section.problems == []
    assert section.facts == [
        (
            'model.teachers.mim.checkpoint',
            f'to be fetched at the first start: {server}/200/weights.pth',
        )
    ]
    assert 'is seen once it is fetched' in section.notes[0]
    assert Answers.asked == ['HEAD /200/weights.pth']
    assert list(tmp_path.iterdir()) == []


def test_address_without_a_network(nowhere: str, tmp_path: Path) -> None:
    (problem,) = teachers(checkpoint=nowhere).problems
    assert problem.startswith(f'model.teachers.mim.checkpoint: {nowhere} is not in {tmp_path}/hub/')
    assert 'Connection refused' in problem
    assert 'put it there as weights-0123abcd.pth or give its path' in problem
    assert '--cfg-options model.teachers.mim.checkpoint=FILE' in problem


def test_answers(server: str) -> None:
    assert unreachable(f'{server}/200/a') is None
    assert unreachable(f'{server}/405/a') is None
    assert unreachable(f'{server}/404/a') == 'the server answers 404 Not Found'
    assert unreachable('http:///') is not None


def test_network_that_starts_from_a_checkpoint() -> None:
    torch.save({'state_dict': {'backbone.a': torch.ones(1), 'neck.b': torch.ones(1)}}, 'w.pth')
    section = checkpoints(model=pretrained('w.pth', prefix='backbone.'))
    assert section.problems == []
    assert section.facts == [
        ('model.backbone.init_cfg.checkpoint', "1 weights under 'backbone.' in w.pth")
    ]


class Network(nn.Module):
    def __init__(self, width: int, init_cfg: dict | None = None) -> None:
        super().__init__()
        layers = (nn.Conv2d(3, width, 1), nn.BatchNorm2d(width))
        self.backbone = Sequential(*layers, init_cfg=init_cfg)


@pytest.mark.parametrize(('width', 'filled'), [(4, 6), (5, 0)])
def test_weights_are_compared_with_the_network(width: int, filled: int) -> None:
    # as old files are: without the counters of batch norms
    weights = {k: v for k, v in Network(4).state_dict().items() if 'num_batches' not in k}
    torch.save({'state_dict': weights}, 'w.pth')
    section = Section(title='c')
    config = Config(dict(model=pretrained('w.pth', prefix='backbone.'), load_from='w.pth'))
    look_at_checkpoints(section, config, Network(width, config.model.backbone.init_cfg))
    assert section.facts[1] == ('backbone filled', f'{filled} of 6 weights')
    assert section.facts[3] == ('the model filled', f'{filled} of 6 weights')
    assert len(section.problems) == (0 if filled else 2)
    assert all('fills 0 of 6 weights (0 missing, 6 of' in p for p in section.problems)


@pytest.mark.parametrize(
    ('allow_missing', 'refused'), [(True, 0), (['backbone.1.*'], 0), (['backbone.0.*'], 1)]
)
def test_weights_that_the_report_in_training_allows_to_be_missing(
    allow_missing: bool | list[str], refused: int
) -> None:
    weights = {k: v for k, v in Network(4).state_dict().items() if k.startswith('backbone.0')}
    torch.save(weights, 'w.pth')
    hook = dict(type='mmengine.PretrainedReportHook', allow_missing=allow_missing)
    config = Config(dict(model=pretrained('w.pth', prefix='backbone.'), custom_hooks=[hook]))
    section = Section(title='c')
    look_at_checkpoints(section, config, Network(4, config.model.backbone.init_cfg))
    assert section.facts[1] == ('backbone filled', '2 of 6 weights')
    assert (len(section.problems), len(section.notes)) == (refused, 1 - refused)


def test_prefix_that_no_weight_has() -> None:
    torch.save({'encoder.a': torch.ones(1), 'neck.b': torch.ones(1)}, 'w.pth')
    (problem,) = checkpoints(model=pretrained('w.pth', prefix='backbone.')).problems
    assert "w.pth holds no weights under 'backbone.'" in problem
    assert '(config key model.backbone.init_cfg.prefix); it holds encoder (1), neck (1).' in problem


@pytest.mark.parametrize(
    ('name', 'made_by'),
    [
        ('work_dirs/quickstart/hgkd/last.pth', '`bash tools/quickstart.sh` trains it'),
        ('work_dirs/mine/epoch_4.pth', '`bash tools/dist_train.sh configs/pretrain/mine.py 8`'),
        ('other.pth', 'train or copy it there'),
    ],
)
def test_missing_checkpoint(name: str, made_by: str) -> None:
    Path('configs/pretrain').mkdir(parents=True)
    Path('configs/pretrain/mine.py').touch()
    section = checkpoints(model=pretrained(name), load_from=name)
    assert [p.split(' (')[0] for p in section.problems] == [
        f'There is no checkpoint {name}, which model.backbone.init_cfg.checkpoint names',
        f'There is no checkpoint {name}, which load_from names',
    ]
    assert all(made_by in problem for problem in section.problems)
    assert section.problems[1].endswith('with --cfg-options load_from=FILE.')


def test_short_names_of_mmengine(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr('hgkd_mm.doctor.weights.unreachable', asked.append)
    checkpoints(
        model=dict(pretrained='open-mmlab://resnet50_v1c', **pretrained('torchvision://resnet50'))
    )
    # The addresses in mmengine/hub/openmmlab.json and torchvision's ResNet50_Weights.
    v1c, torchvisions = asked
    assert v1c.endswith('resnet50_v1c-2cccc1ad.pth')
    assert torchvisions == 'https://download.pytorch.org/models/resnet50-0676ba61.pth'


def test_training_checkpoint_of_mmengine_is_no_problem() -> None:
    log = HistoryBuffer([1.0], [1])
    torch.save({'state_dict': {'backbone.a': torch.ones(1)}, 'message_hub': {'x': log}}, 'w.pth')
    section = checkpoints(load_from='w.pth')
    assert section.problems == []
    # torch before 2.6 does not read such a file without running code from it
    assert [key for key, _ in section.facts] == ['load_from'] or 'was not read' in section.notes[0]


def test_damaged_checkpoint() -> None:
    Path('w.pth').write_bytes(b'PK\x03\x04 no archive')
    (problem,) = checkpoints(load_from='w.pth').problems
    assert 'The checkpoint w.pth is not a readable weight file' in problem
    assert 'config key load_from' in problem
