"""What a config needs and this machine lacks: data, weights, images a step."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import Request, urlopen

import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, HOOKS, MODELS, DefaultScope
from torch import nn

import hgkd_mm.datasets
import hgkd_mm.engine
import hgkd_mm.models  # noqa: F401  they register
from hgkd_mm.utils.environment import MissingOpsError, notes
from hgkd_mm.utils.files import is_remote
from hgkd_mm.utils.launch import add_config_flag, load_config, scaled_iterations
from hgkd_mm.weights.fit import compare
from hgkd_mm.weights.pretrained import PretrainedFile
from hgkd_mm.weights.reading import cached, register_reader, resolve

from .report import Section

# The command that makes or links a folder that is recognized by its name.
_DATA = (
    (r'.*?scenes[^/]*', 'python tools/make_scenes.py --out {}'),
    (r'.*imagenet[^/]*', 'ln -s /path/to/imagenet {}'),
    (r'(.*/)?coco[^/]*', 'ln -s /path/to/coco {}'),
    (r'(.*/)?ade[^/]*(/ADE[^/]*)?', 'ln -s /path/to/ADEChallengeData2016 {}'),
)
_ANSWER_TIME = 5.0  # seconds


def look_at_config(path: str, options: Sequence[str] = (), *, build: bool = False) -> Section:
    """Looks for all that a config names.

    Args:
        path: The config file.
        options: Overrides, 'key=value' as ``--cfg-options`` takes them.
        build: Also build the model, the optimizer and the data sets, and read the weights.
    """
    section = Section(title=f'Config {path}')
    try:
        config = load_config(path, _parsed(options))
    except MissingOpsError as error:
        section.problems.append(str(error))
        return section
    except Exception as error:  # a config is a program, and may raise anything
        while isinstance(error, ImportError) and (error.__cause__ or error.__context__):
            error = error.__cause__ or error.__context__  # mmengine hides the name of the module
        section.problems.append(f'{path} cannot be read: {_sentence(error)}')
        return section
    with DefaultScope.overwrite_default_scope(config.get('default_scope', 'mmengine')):
        look_at_data(section, config, load=build)
        complete = look_at_weights(section, config)
        if build and complete:
            build_model(section, config)
        elif build:
            section.notes.append('The model was not built: not all of its weights are here.')
    look_at_batch(section, config, gpus=torch.cuda.device_count())
    if torch.cuda.is_available():
        look_at_gpu(section, config)
    return section


def look_at_gpu(section: Section, config: Config) -> None:
    """Adds what a config needs of the GPU and a training would not refuse by itself.

    Args:
        section: Is added to.
        config: The config.
    """
    wrapper = str((config.get('optim_wrapper') or {}).get('type'))
    major, minor = torch.cuda.get_device_capability()
    if 'BF16' in wrapper and major < 8:
        section.problems.append(
            f'optim_wrapper.type is {wrapper}, and a GPU of compute capability {major}.{minor} '
            'only emulates bfloat16, which is slower than float32: set '
            'optim_wrapper.type=AmpOptimWrapper for float16, or OptimWrapper.'
        )
    if config.get('default_scope') == 'mmdet':
        section.problems += notes(ops=True)


def look_at_data(section: Section, config: Config, *, load: bool = False) -> None:
    """Looks for the files of data loaders, hooks and evaluators, also inside wrappers.

    Data sets are built without listing their images (``lazy_init``): each class knows where it
    reads.

    Args:
        section: Is added to.
        config: With its default scope set.
        load: Also list the images, and load the first one of each data set.
    """
    wanted: dict[str, list[str]] = {}
    loaded = set()
    for key, node in _datasets(config):
        try:
            dataset = DATASETS.build({**node, 'lazy_init': True})
            missing = [path for path in _paths(dataset) if not _is_there(path)]
            for path in missing:
                wanted.setdefault(path, []).append(key)
            if load and not missing and str(node) not in loaded:
                loaded.add(str(node))
                dataset.full_init()
                dataset[0]
                section.facts[key] = f'{len(dataset)} images, the first one loads'
        except Exception as error:  # whatever a data set's code raises
            section.problems.append(f'{key} cannot be used: {_sentence(error)}')
    for key, node in _nodes(config, '_evaluator'):
        path = node.get('ann_file')
        if isinstance(path, str) and path and not _is_there(path):
            wanted.setdefault(path, []).append(key)
    for path, keys in wanted.items():
        if not any(path != root and path.startswith(root.rstrip('/') + '/') for root in wanted):
            section.problems.append(
                f'{path} does not exist or is empty (relative paths start at {Path.cwd()}), and is '
                f'needed by {", ".join(keys)}: {_data_cure(path, keys[0])}.'
            )


def _datasets(config: Config) -> Iterator[tuple[str, dict]]:
    """The data sets on this machine's disks that the Runner would build."""
    for key, node in _nodes(config, '_dataloader', '_hooks'):
        kind = node.get('type')
        if isinstance(kind, str):
            with DATASETS.switch_scope_and_registry(None) as registry:
                kind = registry.get(kind)
        known = isinstance(kind, type) and issubclass(kind, BaseDataset)
        if known and not is_remote(str(node.get('data_root'))):
            yield key, node


def _paths(dataset: BaseDataset) -> list[str]:
    """What a data set reads: its root alone where that is missing."""
    root = dataset.data_root
    if root and not _is_there(root):
        return [root]
    return [path for path in (*dataset.data_prefix.values(), dataset.ann_file) if path]


def _is_there(path: str) -> bool:
    """Whether a file exists or a folder holds something; what is not on a disk counts as there."""
    if is_remote(path):
        return True
    place = Path(path)
    return any(place.iterdir()) if place.is_dir() else place.is_file()


def _data_cure(path: str, key: str) -> str:
    elsewhere = f'set the paths of {key} to where it is (--cfg-options {key}.data_root=DIR)'
    for pattern, command in _DATA:
        if found := re.match(pattern, path.rstrip('/'), re.IGNORECASE):
            return f'`{command.format(found.group())}`, or {elsewhere}'
    return elsewhere


def look_at_weights(section: Section, config: Config) -> bool:
    """Looks for the files of teachers, ``init_cfg``, ``pretrained`` and ``load_from``.

    Returns:
        Whether all of them are on this machine.
    """
    complete = True
    for key, source in _weight_files(config):
        address = resolve(source)
        path = cached(address) if is_remote(address) else Path(address).expanduser()
        if path.is_file():
            section.facts[key] = str(path)
            continue
        complete = False
        if not is_remote(address):
            made = 'run `bash tools/quickstart.sh`' if 'quickstart' in source else 'train it'
            section.problems.append(
                f'There is no checkpoint {source}, which {key} names (relative paths start at '
                f'{Path.cwd()}): {made}, copy it there, or name another with --cfg-options '
                f'{key}=FILE.'
            )
        elif address.startswith('http') and (reason := unreachable(address)):
            section.problems.append(
                f'{key}: {address} is not in {path.parent} and cannot be fetched ({reason}): '
                f'download it on a machine with access, and put it there as {path.name} or give '
                f'its path (--cfg-options {key}=FILE).'
            )
        else:
            section.facts[key] = f'to be fetched at the first start: {address}'
    return complete


def unreachable(url: str, *, timeout: float = _ANSWER_TIME) -> str | None:
    """Why a file cannot be fetched, None if it can; its server is asked for the header only."""
    try:
        with urlopen(Request(url, method='HEAD'), timeout=timeout):
            return None
    except (HTTPException, OSError, ValueError) as error:
        # A server may serve files and refuse this question (405).
        return None if getattr(error, 'code', None) == 405 else str(error) or type(error).__name__


def _weight_files(config: Config) -> Iterator[tuple[str, str]]:
    for key, node in _nodes(config, 'model'):
        for name in ('checkpoint', 'pretrained'):
            if isinstance(node.get(name), str):
                yield f'{key}.{name}', node[name]
    if config.get('load_from'):
        yield 'load_from', str(config.load_from)


def build_model(section: Section, config: Config) -> None:
    """Builds model and optimizer on the CPU and loads the weights, as a training starts."""
    register_reader()
    try:
        model = MODELS.build(config.model)
        weights = sum(p.numel() for p in model.parameters()) / 1e6
        section.facts['model'] = f'{type(model).__name__} is built, {weights:.1f} M weights'
        if config.get('optim_wrapper'):
            wrapper = build_optim_wrapper(model, config.optim_wrapper)
            logger = SimpleNamespace(info=section.notes.append)
            runner = SimpleNamespace(model=model, optim_wrapper=wrapper, logger=logger)
            hooks = config.get('custom_hooks') or []
            named = (hook for hook in hooks if 'PretrainedReportHook' in str(hook.get('type')))
            settings = {**next(named, dict(type='PretrainedReportHook'))}
            settings.pop('priority', None)  # of the Runner
            hook = HOOKS.build(settings)
            hook.before_run(runner)
            model.init_weights()
            hook.before_train(runner)
        if config.get('load_from'):
            _compare_load_from(section, str(config.load_from), model)
    except Exception as error:  # whatever the code that a config names raises
        section.problems.append(f'Training cannot start: {_sentence(error)}')


def _compare_load_from(section: Section, source: str, model: nn.Module) -> None:
    """MMEngine loads what fits of this file and goes on with random weights elsewhere."""
    weights = PretrainedFile(checkpoint=source, prefix=None, key='load_from').read()
    fit = compare(model.state_dict(), weights)
    if fit.lacking:
        section.problems.append(
            f'load_from: {source} fills {fit.counts()} of the model, and the others stay random: '
            'give a checkpoint of this config.'
        )


def look_at_batch(section: Section, config: Config, *, gpus: int) -> None:
    """Compares the images of a step on this machine with what the learning rate was set for.

    Args:
        section: Is added to.
        config: The config.
        gpus: Of this machine; 0 trains on the CPU.
    """
    images = (config.get('train_dataloader') or {}).get('batch_size')
    if not images:
        return
    steps = (config.get('optim_wrapper') or {}).get('accumulative_counts', 1)
    forward = images * max(gpus, 1)
    fact = f'{images} images x {f"{gpus} GPU(s)" if gpus else "1 process on the CPU"}'
    accumulated = f' x {steps} accumulated' if steps > 1 else ''
    section.facts['images a step'] = f'{fact}{accumulated} = {forward * steps}'
    base = (config.get('auto_scale_lr') or {}).get('base_batch_size')
    if not base:
        return
    if base != forward * steps:
        scale = '--auto-scale-lr'
        if steps > 1:
            scale += ' and optim_wrapper.accumulative_counts=1 (it does not know of accumulation)'
        section.notes.append(
            f'The learning rate is set for {base} images a step, and a step here has '
            f'{forward * steps}: train with {scale}{_accumulate(config, base, forward)}.'
        )
    longer = base / forward
    if options := scaled_iterations(config, longer):
        values = ' '.join(f'{key}={value}'.replace(' ', '') for key, value in options.items())
        section.notes.append(
            f'The iterations are set for {base} images, and one here has {forward}, with '
            f'accumulation too: for as many images multiply them by {longer:g}, '
            f'--cfg-options {values}'
        )


def _accumulate(config: Config, base: int, images: int) -> str:
    """The way to a step of ``base`` images by several forward passes, if there is one."""
    more, rest = divmod(base, images)
    if more < 2 or rest:
        return ''
    text = f', or optim_wrapper.accumulative_counts={more} with --cfg-options'
    for index, hook in enumerate(config.get('custom_hooks') or []):
        # it follows every forward pass
        if 'momentum' in hook and str(hook.get('type')).endswith('EMAHook'):
            text += f' and custom_hooks.{index}.momentum={hook.momentum / more:g}'
    return text


def _parsed(options: Sequence[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_config_flag(parser, example='')
    return parser.parse_args(['--cfg-options', *options] if options else []).cfg_options


def _sentence(error: BaseException) -> str:
    return f'{type(error).__name__}: {error}'.split('\n')[0]


def _nodes(config: Config, *endings: str) -> Iterator[tuple[str, dict]]:
    """All dicts, with their dotted keys, below the top-level keys that end like this."""
    for key, value in config.items():
        if key.endswith(endings):
            yield from _walk(value, key)


def _walk(value: Any, key: str) -> Iterator[tuple[str, dict]]:
    children = enumerate(value) if isinstance(value, (list, tuple)) else ()
    if isinstance(value, dict):
        yield key, value
        children = value.items()
    for name, child in children:
        yield from _walk(child, f'{key}.{name}')
