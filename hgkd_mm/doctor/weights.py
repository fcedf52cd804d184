"""Weight files of a config: teachers, and checkpoints that networks start from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS
from torch import Tensor, nn

from hgkd_mm.engine import PretrainedReportHook
from hgkd_mm.models.teachers.base import BaseTeacher
from hgkd_mm.utils.files import is_remote
from hgkd_mm.weights.fit import compare, weight_names
from hgkd_mm.weights.pretrained import PretrainedFile, PretrainedPart, pretrained_parts
from hgkd_mm.weights.reading import cached, read_file, resolve

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

    What MMEngine would take of each is compared with the network, as ``PretrainedReportHook``
    does in training; the files are read without running anything from them.

    Args:
        section: Is added to.
        config: The config.
        model: What the config trains, to compare the files with; None to look for them only.
    """
    files = _Files(section)
    report = _report_hook(config)
    parts = list(pretrained_parts(model)) if model is not None else []
    for part in parts:
        picked = [files.weights(file) for file in part.files]
        if all(weights is not None for weights in picked):
            found = {name: value for weights in picked for name, value in weights.items()}
            _compare(section, part, found, report)
    compared = {(file.checkpoint, file.prefix) for part in parts for file in part.files}
    for file in _in_config(config):
        if (file.checkpoint, file.prefix) not in compared:
            files.weights(file)
    if config.get('load_from'):
        start = PretrainedFile(checkpoint=str(config.load_from), prefix=None, key='load_from')
        found = files.weights(start)
        if found is not None and model is not None:
            whole = PretrainedPart(name='', module=model, files=(start,))
            # What the hook allows is about init_cfg, so of load_from nothing may be missing.
            _compare(section, whole, found, PretrainedReportHook())


class _Files:
    """Reads each file once.

    Args:
        section: Is told of each use of a file.
    """

    def __init__(self, section: Section) -> None:
        self._section = section
        self._contents: dict[Path, Any] = {}

    def weights(self, file: PretrainedFile) -> dict[str, Tensor] | None:
        """What MMEngine takes of a file; None, and the section says why, if that is not known."""
        path = self._path(file)
        if path is None:
            return None
        try:
            weights = file.pick(self._content(path, file))
        except (RuntimeError, ValueError) as error:
            self._section.problems.append(f'{file.key}: {error}')
            return None
        shown = f' under {file.prefix!r}' if file.prefix else ''
        number = len(weight_names(weights))
        self._section.facts.append((file.key, f'{number} weights{shown} in {path}'))
        return weights

    def _path(self, file: PretrainedFile) -> Path | None:
        address = resolve(file.checkpoint)
        if is_remote(address):
            return cached(address) if _is_here(self._section, file.key, address) else None
        path = Path(address).expanduser()
        if path.is_file():
            return path
        self._section.problems.append(
            f'There is no checkpoint {file.checkpoint}, which {file.key} names (relative paths '
            f'start at {Path.cwd()}): {_made_by(file.checkpoint)}, or name another with '
            f'--cfg-options {file.key}=FILE.'
        )
        return None

    def _content(self, path: Path, file: PretrainedFile) -> Any:
        if path not in self._contents:
            self._contents[path] = read_file(path, key=f'config key {file.key}')
        return self._contents[path]


def _compare(
    section: Section,
    part: PretrainedPart,
    weights: dict[str, Tensor],
    report: PretrainedReportHook,
) -> None:
    """Says how many weights of a module its files would fill."""
    fit = compare(part.module.state_dict(), weights)
    key, what = part.files[0].key, part.name or 'the model'
    section.facts.append((f'{what} filled', f'{fit.loaded} of {fit.total} weights'))
    refused = [name for name in fit.lacking if not report.allows(part.full_name(name))]
    line = f'{key}: of {what} the file fills {fit.counts()}, and the others would stay random'
    if refused:
        section.problems.append(
            f'{line}: use a file of the same network, or the network of the file.'
        )
    elif fit.lacking:
        section.notes.append(f'{line}, which allow_missing of PretrainedReportHook allows.')


def _report_hook(config: Config) -> PretrainedReportHook:
    """The hook that would look at the weights in training, as the config sets it."""
    for hook in config.get('custom_hooks') or []:
        kind = hook.get('type')
        # 'PretrainedReportHook', with or without a scope, or the class itself
        named = isinstance(kind, str) and kind.rpartition('.')[2] == PretrainedReportHook.__name__
        if named or kind is PretrainedReportHook:
            return PretrainedReportHook(allow_missing=hook.get('allow_missing', False))
    return PretrainedReportHook()


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


def _in_config(config: Config) -> Iterator[PretrainedFile]:
    """The files that parts of the model are to start from."""
    for key, node in nodes(config.get('model'), 'model'):
        if node.get('type') == 'Pretrained':
            yield PretrainedFile(
                checkpoint=str(node.get('checkpoint')),
                prefix=node.get('prefix'),
                key=f'{key}.checkpoint',
            )
        if isinstance(node.get('pretrained'), str):
            yield PretrainedFile(
                checkpoint=node['pretrained'], prefix=None, key=f'{key}.pretrained'
            )


def _made_by(source: str) -> str:
    """How a file that is not there comes about, as far as the repository knows."""
    if 'work_dirs/quickstart' in source:
        return '`bash tools/quickstart.sh` trains it'
    run = re.search(r'work_dirs/([^/]+)/', source)
    config = f'configs/pretrain/{run.group(1)}.py' if run else ''
    if config and Path(config).is_file():
        return f'`bash tools/dist_train.sh {config} 8` trains it'
    return 'train or copy it there'
