"""Weight files of a config: teachers, and checkpoints that networks start from."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner.checkpoint import get_external_models, get_torchvision_models
from torch import Tensor, nn

from hgkd_mm.models.teachers.base import BaseTeacher
from hgkd_mm.utils.checkpoint_file import Wording, cached, find_tensors, read_file
from hgkd_mm.utils.files import is_remote

from .section import Section
from .urls import unreachable
from .walk import nodes


def look_at_teachers(section: Section, config: Config) -> None:
    """Builds every teacher whose weights are on this machine: each loads strictly, or says why not.

    Args:
        section: Is added to.
        config: With its default scope set.
    """
    for key, node in nodes(config.get('model'), 'model'):
        if not _is_teacher(node.get('type')):
            continue
        source = str(node.get('checkpoint') or '')
        if is_remote(source) and not _is_here(section, f'{key}.checkpoint', source):
            continue
        try:
            teacher = MODELS.build(node)
        except (FileNotFoundError, RuntimeError, TypeError, ValueError) as error:
            # they are sentences, and name the settings of the teacher without where it stands
            section.problems.append(f'{key}: {error}')
            continue
        weights = sum(p.numel() for p in teacher.parameters()) / 1e6
        section.facts.append(
            (
                key,
                f'{type(teacher).__name__}, view {teacher.teacher_view!r}, width '
                f'{teacher.embed_dim}, {weights:.1f} M weights loaded from {source}',
            )
        )


def look_at_checkpoints(section: Section, config: Config, model: nn.Module | None = None) -> None:
    """Looks for the files of ``init_cfg`` of type Pretrained, ``pretrained`` and ``load_from``.

    Args:
        section: Is added to.
        config: The config.
        model: What the config trains, to compare the files with; None to look for them only.
    """
    for key, source, prefix in _checkpoints(config):
        address = _resolved(source)
        if is_remote(address) and not _is_here(section, key, address):
            continue
        path = cached(address) if is_remote(address) else Path(address).expanduser()
        if not path.is_file():
            section.problems.append(
                f'There is no checkpoint {source}, which {key} names (relative paths start at '
                f'{Path.cwd()}): {_made_by(source)}, or name another with --cfg-options {key}=FILE.'
            )
            continue
        wording = Wording(kind='checkpoint', given_by=f'config key {key}', trust='it')
        try:
            found = find_tensors(read_file(path, source, wording), source)
        except (RuntimeError, ValueError) as error:
            if isinstance(error.__cause__, pickle.UnpicklingError) and zipfile.is_zipfile(path):
                section.notes.append(f'{key}: {path} holds more than tensors and was not read.')
            else:
                section.problems.append(f'{key}: {error}')
            continue
        matching = {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}
        shown = f' of {len(found)} begin with {prefix!r}' if prefix else ''
        section.facts.append((key, f'{len(matching)} weights{shown} in {path}'))
        if not matching:
            beginnings = sorted({name.split('.')[0] + '.' for name in found})
            section.problems.append(
                f'{key}: no weight of {path} begins with {prefix!r}, so that the network would '
                f'start from random ones. They begin with {", ".join(beginnings[:6])}: set '
                f'{key.removesuffix(".checkpoint")}.prefix to that of the wanted part.'
            )
        elif model is not None:
            _compare(section, key, matching, model)


def _compare(section: Section, key: str, weights: dict[str, Tensor], model: nn.Module) -> None:
    """Says how many weights of the network that a file is for it would fill."""
    name = re.sub(r'^model\.?|\.?init_cfg.*$|\.?pretrained$|^load_from$', '', key)
    network = dict(model.named_modules()).get(name)
    if network is None:
        return
    # counters of batch norms do not change what the network computes, and old files lack them
    own = {k: v for k, v in network.state_dict().items() if not k.endswith('num_batches_tracked')}
    wrong = [k for k, v in own.items() if k not in weights or weights[k].shape != v.shape]
    what = name or 'the model'
    section.facts.append((f'{what} filled', f'{len(own) - len(wrong)} of {len(own)} weights'))
    if wrong:
        section.problems.append(
            f'{key}: {len(wrong)} of {len(own)} weights of {what} are not in the file, or of '
            f'another shape there ({", ".join(wrong[:3])}, ...), and would stay random: use a file '
            'of the same network, or the network of the file.'
        )


def _is_teacher(name: Any) -> bool:
    if isinstance(name, str):
        with MODELS.switch_scope_and_registry(None) as registry:
            name = registry.get(name)
    return isinstance(name, type) and issubclass(name, BaseTeacher)


def _is_here(section: Section, key: str, address: str) -> bool:
    """Whether the file of an address was fetched before; if not, whether it could be."""
    if not address.startswith(('http://', 'https://')):
        section.notes.append(f'{key}: {address} is not on this machine and is not looked at.')
        return False
    path = cached(address)
    if path.is_file():
        return True
    reason = unreachable(address)
    if reason is None:
        section.facts.append((key, f'to be fetched at the first start: {address}'))
        section.notes.append(f'Whether {key} fits is seen once it is fetched, to {path}.')
        return False
    section.problems.append(
        f'{key}: {address} is not in {path.parent} and cannot be fetched ({reason}): download it '
        f'on a machine with access, and put it there as {path.name} or give its path '
        f'(--cfg-options {key}=FILE).'
    )
    return False


def _checkpoints(config: Config) -> Iterator[tuple[str, str, str]]:
    """Key, file or address, and prefix of each checkpoint that weights are taken from."""
    for key, node in nodes(config.get('model'), 'model'):
        if node.get('type') == 'Pretrained':
            yield f'{key}.checkpoint', str(node.get('checkpoint')), node.get('prefix') or ''
        if isinstance(node.get('pretrained'), str):
            yield f'{key}.pretrained', node['pretrained'], ''
    if config.get('load_from'):
        yield 'load_from', str(config.load_from), ''


def _resolved(source: str) -> str:
    """The address behind the short names that MMEngine knows."""
    scheme, _, name = source.partition('://')
    if scheme == 'torchvision':
        return get_torchvision_models().get(name, source)
    if scheme in ('open-mmlab', 'openmmlab'):
        return get_external_models().get(name, source)
    return source


def _made_by(source: str) -> str:
    """How a file that is not there comes about, as far as the repository knows."""
    if 'work_dirs/quickstart' in source:
        return '`bash tools/quickstart.sh` trains it'
    run = re.search(r'work_dirs/([^/]+)/', source)
    config = f'configs/pretrain/{run.group(1)}.py' if run else ''
    if config and Path(config).is_file():
        return f'`bash tools/dist_train.sh {config} 8` trains it'
    return 'train or copy it there'
