"""Settings of a config against the machine: types, precision, batch size, where it writes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import Registry, root
from mmpretrain.registry import BATCH_AUGMENTS

from hgkd_mm.sparse import ENGINE_NAMES, find_engine
from hgkd_mm.utils import env_check
from hgkd_mm.utils.iterations import scaled_iterations
from hgkd_mm.utils.mmcv_ops import has_ops

from .section import Section
from .walk import nodes, parts

_BUILT = (
    'model',
    '_dataloader',
    'train_cfg',
    'val_cfg',
    'test_cfg',
    '_evaluator',
    '_hooks',
    'optim_wrapper',
    'param_scheduler',
    'visualizer',
)


def look_at_types(section: Section, config: Config) -> None:
    """Looks up every ``type`` that the Runner would build in MMEngine's registries.

    Args:
        section: Is added to.
        config: With its default scope set.
    """
    first: dict[str, str] = {}
    for key, name in _types(config):
        first.setdefault(name, key)
    unknown = {name: key for name, key in first.items() if not _registered(name)}
    section.facts.append(('types', f'{len(first) - len(unknown)} of {len(first)} registered'))
    for name, key in unknown.items():
        section.problems.append(
            f"{key}.type='{name}' is in no registry: correct the name, or add the module that "
            'registers it to custom_imports.imports.'
        )


def look_at_batch(section: Section, config: Config, *, gpus: int) -> None:
    """Compares the images of a step on this machine with what the learning rate was set for.

    Args:
        section: Is added to.
        config: The config.
        gpus: Of this machine; 0 trains on the CPU.
    """
    loader = config.get('train_dataloader')
    if not loader or 'batch_size' not in loader:
        return
    images = loader.batch_size
    steps = (config.get('optim_wrapper') or {}).get('accumulative_counts', 1)
    processes = max(gpus, 1)
    actual = images * processes * steps
    unit = 'GPU(s)' if gpus else 'process on the CPU'
    fact = f'{images} images x {processes} {unit}' + (f' x {steps} accumulated' * (steps > 1))
    section.facts.append(('images a step', f'{fact} = {actual}'))
    base = (config.get('auto_scale_lr') or {}).get('base_batch_size')
    if not base:
        return
    if base != actual:
        scale = '--auto-scale-lr'
        if steps > 1:
            scale += ' and optim_wrapper.accumulative_counts=1 (it does not know of accumulation)'
        section.notes.append(
            f'The learning rate is set for {base} images a step, and a step here has {actual}: '
            f'train with {scale}{_accumulate(config, base, images * processes)}.'
        )
    longer = base / (images * processes)
    options = scaled_iterations(config, longer)
    if options:
        values = ' '.join(f'{key}={value}'.replace(' ', '') for key, value in options.items())
        section.notes.append(
            f'The iterations are set for {base} images, and one here has {images * processes}, '
            f'with accumulation too: for as many images multiply them by {longer:g}, '
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


def look_at_precision(section: Section, config: Config) -> None:
    """Says where bfloat16 is asked for and the device only emulates it.

    Args:
        section: Is added to.
        config: The config.
    """
    kind = (config.get('optim_wrapper') or {}).get('type', '')
    if not isinstance(kind, str) or 'BF16' not in kind or not torch.cuda.is_available():
        return
    major, minor = torch.cuda.get_device_capability()
    if major < 8:
        section.problems.append(
            f'optim_wrapper.type={kind!r} computes in bfloat16, which a GPU of compute capability '
            f'{major}.{minor} does not have: --cfg-options optim_wrapper.type=OptimWrapper.'
        )


def look_at_engine(section: Section, config: Config) -> None:
    """Says whether the sparse engine that a config names is there.

    Args:
        section: Is added to.
        config: The config.
    """
    name = (config.get('model') or {}).get('engine')
    if name is None:
        return
    section.facts.append(('model.engine', str(name)))
    try:
        find_engine(name)
    except (ImportError, ValueError) as error:
        section.problems.append(f'model.engine={name!r} ({", ".join(ENGINE_NAMES)}): {error}')


def look_at_nms(section: Section, config: Config) -> None:
    """Detectors need mmcv's ops on the GPU that they are trained on.

    Args:
        section: Is added to.
        config: The config.
    """
    if config.get('default_scope') != 'mmdet' or not torch.cuda.is_available():
        return
    problem = env_check.attempt('mmcv.ops.nms on the GPU', lambda: env_check.run_nms('cuda'))
    section.problems += [problem] if problem else []


def look_at_work_dir(section: Section, config: Config, path: str) -> None:
    """Says whether the run could write its logs and checkpoints.

    Args:
        section: Is added to.
        config: The config.
        path: Its file, which the default name is taken from.
    """
    folder = Path(config.get('work_dir') or Path('work_dirs', Path(path).stem))
    there = next(f for f in (folder, *folder.absolute().parents) if f.exists())
    section.facts.append(('work_dir', f'{folder}{"" if there == folder else " (not made yet)"}'))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        section.problems.append(
            f'The run would write to {folder}, and {there} cannot be written to: give another '
            'place with --work-dir DIR, or change its owner.'
        )


def _types(config: Config) -> Iterator[tuple[str, str]]:
    """Types by name that are built by a registry, below the keys that the Runner builds."""
    for part, value in parts(config, *_BUILT):
        foreign = ' '
        for key, node in nodes(value, part):
            name = node.get('type')
            if name == 'Albu':
                foreign = f'{key}.'
            # a norm_cfg, an upsample_cfg and the like are read by the layer that they are for
            read_by_owner = key.endswith('_cfg') and not key.endswith(('init_cfg', part))
            owned = key.startswith(foreign) or read_by_owner
            if isinstance(name, str) and not owned:
                yield key, name


def _registered(name: str) -> bool:
    registries = [r for r in vars(root).values() if isinstance(r, Registry)]
    for registry in registries:
        with registry.switch_scope_and_registry(None) as here:
            if here.get(name) is not None:
                return True
    # augmentations of batches have a registry of their own, layers of mmcv are taken by name
    return name in BATCH_AUGMENTS or name in _ops()


def _ops() -> dict[str, object]:
    if not has_ops():
        return {}
    import mmcv.ops

    return vars(mmcv.ops)
