"""What a config needs and this machine lacks: data, weights, images a step."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from hgkd_mm.utils.environment import MissingOpsError
from hgkd_mm.utils.files import is_remote
from hgkd_mm.utils.launch import add_config_flag, load_config, scaled_iterations
from hgkd_mm.weights.reading import cached, resolve

from .section import Section, first_line


def look_at_config(section: Section, path: str, options: Sequence[str] = ()) -> None:
    """Looks for all that a config file with its ``--cfg-options`` names."""
    parser = argparse.ArgumentParser()
    add_config_flag(parser, example='')
    given = parser.parse_args(['--cfg-options', *options] if options else [])
    try:
        config = load_config(path, given.cfg_options)
    except MissingOpsError as error:
        section.problems.append(str(error))
        return
    except Exception as error:  # a config is a program, and may raise anything
        while isinstance(error, ImportError) and (error.__cause__ or error.__context__):
            error = error.__cause__ or error.__context__  # mmengine hides the name of the module
        section.problems.append(f'{path} cannot be read: {first_line(error)}')
        return
    look_at_data(section, config)
    look_at_weights(section, config)
    look_at_batch(section, config, gpus=torch.cuda.device_count())


def look_at_data(section: Section, config: Config) -> None:
    """Looks for the files of data loaders, hooks and evaluators, also inside wrappers."""
    wanted: dict[str, list[str]] = {}
    for key, node in _nodes(config, '_dataloader', '_hooks', '_evaluator'):
        for path in _paths(node):
            if not _is_there(path):
                wanted.setdefault(path, []).append(key)
    for path, keys in wanted.items():
        if not any(path != root and path.startswith(root.rstrip('/') + '/') for root in wanted):
            section.problems.append(
                f'{path} does not exist or is empty (relative paths start at {Path.cwd()}), and is '
                f'needed by {", ".join(keys)}: {_data_cure(path, keys[0])}.'
            )


def _paths(node: dict) -> list[str]:
    """What a data set or metric reads: its root alone where that is missing."""
    root = node.get('data_root') or ''
    if root and not _is_there(root):
        return [root]
    prefix = node.get('data_prefix') or ''
    prefixes = prefix.values() if isinstance(prefix, dict) else [prefix]
    below = [path for path in (*prefixes, node.get('ann_file')) if path and not is_remote(root)]
    return [os.path.join(root, path) for path in below]


def _is_there(path: str) -> bool:
    """Whether a file exists or a folder holds something; what is not on a disk counts as there."""
    if is_remote(path):
        return True
    place = Path(path)
    return any(place.iterdir()) if place.is_dir() else place.is_file()


def _data_cure(path: str, key: str) -> str:
    scenes = re.match(r'.*?scenes[^/]*', path)
    make = f'`python tools/make_scenes.py --out {scenes.group()}`' if scenes else 'link it there'
    return f'{make}, or set the paths of {key} (--cfg-options {key}.data_root=DIR)'


def look_at_weights(section: Section, config: Config) -> None:
    """Looks for the files of teachers, ``init_cfg``, ``pretrained`` and ``load_from``."""
    for key, source in _weight_files(config):
        address = resolve(source)
        path = cached(address) if is_remote(address) else Path(address).expanduser()
        if path.is_file():
            section.facts[key] = str(path)
        elif is_remote(address):
            section.facts[key] = f'fetched at the first start unless it is at {path}: {address}'
        else:
            made = 'run `bash tools/quickstart.sh`' if 'quickstart' in source else 'train it'
            section.problems.append(
                f'There is no checkpoint {source}, which {key} names (relative paths start at '
                f'{Path.cwd()}): {made}, copy it there, or name another with --cfg-options '
                f'{key}=FILE.'
            )


def _weight_files(config: Config) -> Iterator[tuple[str, str]]:
    for key, node in _nodes(config, 'model'):
        for name in ('checkpoint', 'pretrained'):
            if isinstance(node.get(name), str):
                yield f'{key}.{name}', node[name]
    if config.get('load_from'):
        yield 'load_from', str(config.load_from)


def look_at_batch(section: Section, config: Config, *, gpus: int) -> None:
    """Compares the images of a step on this machine with what the learning rate was set for."""
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
            scale += ' and optim_wrapper.accumulative_counts=1 (accumulation is not counted)'
        section.notes.append(
            f'The learning rate is set for {base} images a step, and a step here has '
            f'{forward * steps}: train with {scale}{_accumulate(config, base, forward)}.'
        )
    if options := scaled_iterations(config, base / forward):
        values = ' '.join(f'{key}={value}'.replace(' ', '') for key, value in options.items())
        section.notes.append(
            f'The iterations are set for {base} images, and one here has {forward}, with '
            f'accumulation too: for as many images multiply them by {base / forward:g}, '
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
