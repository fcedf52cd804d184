"""The full-scale configs of the tasks: read, built and followed, for tests."""

from __future__ import annotations

import argparse
import copy
import functools
import re
import shlex
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS, DefaultScope
from torch import nn

import hgkd_mm.detection
import hgkd_mm.engine  # noqa: F401  (registers)
from hgkd_mm.utils.launch import add_config_flag

CONFIGS = Path(__file__).parents[2] / 'configs'
SCOPES = {'cls': 'mmpretrain', 'det': 'mmdet', 'seg': 'mmseg'}
# The small ones on Scenes have tests of their own.
ALL = sorted(
    str(path.relative_to(CONFIGS))
    for task in SCOPES
    for path in (CONFIGS / task).glob('*.py')
    if '_scenes' not in path.stem
)
# Width of the four maps, by the network's name in the config's.
WIDTHS = {
    'r18': (64, 128, 256, 512),
    'r50': (256, 512, 1024, 2048),
    'r101': (256, 512, 1024, 2048),
    'mobilenet-v2': (24, 32, 96, 1280),
}
# Width and depth of the vision transformers.
VITS = {'vit-b': (768, 12), 'vit-l': (1024, 24)}


@functools.cache
def _read(name: str) -> Config:
    return Config.fromfile(CONFIGS / name)


def load(name: str) -> Config:
    """A config of one's own; reading takes a while with bases in other packages."""
    return copy.deepcopy(_read(name))


def commands(page: str) -> list[list[str]]:
    """The words of every command in the shell blocks of a page of docs/."""
    text = (CONFIGS.parent / 'docs' / f'{page}.md').read_text()
    blocks = re.findall(r'```bash\n(.*?)```', text, flags=re.DOTALL)
    lines = '\n'.join(blocks).replace('\\\n', ' ').splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [command for command in words if command]


def documented(page: str, option: str) -> Config:
    """The config of the page's only command with an option, as the command changes it."""
    (words,) = [command for command in commands(page) if option in command]
    config = load(str(Path(words[2]).relative_to('configs')))
    parser = argparse.ArgumentParser()
    add_config_flag(parser, example='')
    options = parser.parse_args(words[words.index('--cfg-options') :]).cfg_options
    config.merge_from_dict(options)
    return config


def student(name: str) -> str:
    (found,) = [key for key in (*WIDTHS, *VITS) if re.search(rf'(^|[_/]){key}_', name)]
    return found


OF_VITS = [name for name in ALL if student(name) in VITS]
OF_CNNS = [name for name in ALL if student(name) in WIDTHS]
TWINS = [name for name in OF_CNNS if name.endswith(('_scratch.py', '_supervised.py'))]

_built: dict[str, nn.Module] = {}


def build(config: Config) -> nn.Module:
    """The network without values, which is all that names and shapes need; equal ones once."""
    settings = copy.deepcopy(config.model)
    settings.backbone.pop('init_cfg', None)
    key = repr(settings)
    if key not in _built:
        with DefaultScope.overwrite_default_scope(config.default_scope):
            _built[key] = MODELS.build(settings).to('meta')
    return copy.deepcopy(_built[key])


def optimization(model: nn.Module, config: Config) -> OptimWrapper:
    with DefaultScope.overwrite_default_scope(config.default_scope):
        return build_optim_wrapper(model, config.optim_wrapper)


def settings_by_weight(model: nn.Module, config: Config) -> dict[str, dict]:
    """The optimizer's group of every trained weight by name."""
    groups = optimization(model, config).optimizer.param_groups
    # A group a tensor would make every step a loop over hundreds of kernels; ViT-L has 26 layers,
    # with and without weight decay.
    assert len(groups) <= 52
    found = {id(p): group for group in groups for p in group['params']}
    assert len(found) == sum(len(group['params']) for group in groups)
    return {name: found[id(p)] for name, p in model.named_parameters() if p.requires_grad}


def follow(config: Config, *, steps_per_epoch: int = 1, scale: int = 1) -> list[float]:
    """The learning rate at each step, as a share of its peak; ``scale`` steps are made one."""
    loop = config.train_cfg
    steps = loop.get('max_iters') or loop.max_epochs * steps_per_epoch
    wrapper = OptimWrapper(torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0))
    defaults = dict(optimizer=wrapper, epoch_length=steps_per_epoch)
    schedulers = []
    for settings in copy.deepcopy(config.param_scheduler):
        for key in {'begin', 'end'} & set(settings):
            assert settings[key] % scale == 0
            settings[key] //= scale
        if 'milestones' in settings:
            settings.milestones = [m // scale for m in settings.milestones]
        schedulers.append(PARAM_SCHEDULERS.build(settings, default_args=dict(defaults)))
    seen = []
    wrapper.step()
    for _ in range(steps // scale):
        seen.append(wrapper.optimizer.param_groups[0]['lr'])
        for scheduler in schedulers:
            scheduler.step()
    return seen
