"""Data sets of a config: their folders and annotation files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS
from mmpretrain.datasets import CustomDataset

from hgkd_mm.utils.files import is_remote

from .contents import content_problem
from .files import count, counted, data_cure
from .section import Section
from .walk import nodes, parts


def look_at_data(section: Section, config: Config) -> None:
    """Looks for all that the data loaders, evaluators and hooks of a config read.

    Data sets are built without listing their images (``lazy_init``), so that each class says
    itself where it reads. Nothing is written.

    Args:
        section: Is added to.
        config: With its default scope set, see ``mmengine.registry.DefaultScope``.
    """
    missing_roots: dict[str, list[str]] = {}
    seen: dict[tuple, list[str]] = {}
    for key, node, kind in _data_nodes(config):
        if not issubclass(kind, BaseDataset):
            section.notes.append(f'{key} is a {kind.__name__}, whose files are not looked at.')
            continue
        if is_remote(str(node.get('data_root'))):
            section.notes.append(f'{key} reads {node["data_root"]}, which is not looked at.')
            continue
        try:
            dataset = DATASETS.build({**node, 'lazy_init': True})
        except Exception as error:  # whatever a data set's constructor raises
            text = str(error).split('\n')[0]
            section.problems.append(
                f'{key} cannot be built ({type(error).__name__}: {text}): correct its arguments.'
            )
            continue
        root = dataset.data_root or ''
        if root and not Path(root).is_dir():
            missing_roots.setdefault(root, []).append(key)
            continue
        same = (kind, dataset.ann_file, *dataset.data_prefix.values())
        seen.setdefault(same, []).append(key)
        if seen[same] == [key]:
            _look_at_dataset(section, key, dataset)
    for root, keys in missing_roots.items():
        section.problems.append(
            f'There is no folder {root}, which is asked for by {", ".join(keys)} (relative paths '
            f'start at {Path.cwd()}): {data_cure(root, keys[0])}.'
        )
    for key, path in _annotations_of_evaluators(config):
        told = any(path.startswith(root) for root in missing_roots)
        if not told and not is_remote(path) and not Path(path).is_file():
            section.problems.append(
                f'There is no annotation file {path}, which {key} compares with: make or link it, '
                f'or set {key}.ann_file.'
            )


def _data_nodes(config: Config) -> Iterator[tuple[str, dict, type]]:
    """Data sets that the Runner builds, those inside wrappers and hooks too."""
    for part, value in parts(config, '_dataloader', '_hooks'):
        for key, node in nodes(value, part):
            kind = _dataset_class(node.get('type'))
            if kind is not None and not {'dataset', 'datasets'} & set(node):
                yield key, node, kind


def _dataset_class(name: Any) -> type | None:
    if isinstance(name, str):
        with DATASETS.switch_scope_and_registry(None) as registry:
            name = registry.get(name)
    return name if isinstance(name, type) else None


def _annotations_of_evaluators(config: Config) -> Iterator[tuple[str, str]]:
    found = set()
    for part, value in parts(config, '_evaluator'):
        for key, node in nodes(value, part):
            path = node.get('ann_file')
            if isinstance(path, str) and path and path not in found:
                found.add(path)
                yield key, path


def _look_at_dataset(section: Section, key: str, dataset: BaseDataset) -> None:
    root = dataset.data_root or '.'
    suffixes = dataset.extensions if isinstance(dataset, CustomDataset) else ()
    problems = []
    held = []
    for name, folder in dataset.data_prefix.items():
        if is_remote(folder):
            section.notes.append(f'{key} reads {folder}, which is not looked at.')
            continue
        folder = Path(folder)  # without the slash that some roots end with
        number = count(folder, suffixes)
        held.append(f'{folder}: {counted(number)}')
        if not number:
            state = 'holds no image' if folder.is_dir() else 'does not exist'
            problems.append(f'{key}: the folder {folder} ({name}) {state}')
    if dataset.ann_file and not is_remote(dataset.ann_file):
        held.append(dataset.ann_file)
        if not Path(dataset.ann_file).exists():
            problems.append(f'{key}: there is no annotation file {dataset.ann_file}')
    section.facts.append((key, f'{type(dataset).__name__}, {", ".join(held)}'))
    section.problems += [f'{problem}: {data_cure(root, key)}.' for problem in problems]
    if not problems:
        problem = content_problem(key, dataset)
        section.problems += [problem] if problem else []
