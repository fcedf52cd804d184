"""Says in sentences what is wrong with the installed stack, and what to do about it.

Imports the standard library only, so that it can report a broken torch or a missing package; each
check imports what it looks at.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

SETUP = 'bash tools/setup_env.sh'
STACKS = ('requirements.txt', 'requirements/openmmlab.txt')
FORKS = {
    'mmcv': 'onedl-mmcv',
    'mmengine': 'onedl-mmengine',
    'mmpretrain': 'onedl-mmpretrain',
    'mmdet': 'onedl-mmdetection',
    'mmsegmentation': 'onedl-mmsegmentation',
}
# What the second stack has in mmcv's place where nobody asked for compiled ops.
PURE_MMCV = 'mmcv-lite'
_CURES = (
    (
        r'operator torchvision::nms does not exist',
        'torch and torchvision come from different builds (a CPU-only torch beside the torchvision '
        f'of PyPI, for example): install both from PyPI, as pinned, with `{SETUP}`',
    ),
    (
        r'libGL\.so|libgthread',
        'opencv-python is installed and this machine has no libGL: `pip uninstall -y opencv-python '
        f'opencv-python-headless`, then `{SETUP}`',
    ),
    (
        r'no kernel image',
        f'it was compiled without code for this GPU: compile mmcv on this machine (`{SETUP} '
        '--rebuild-mmcv`); if torch itself fails, take a build with the GPU in '
        '`torch.cuda.get_arch_list()`',
    ),
    (
        r'undefined symbol',
        'mmcv was compiled for another torch than the one installed: `'
        f'{SETUP} --rebuild-mmcv` compiles it anew',
    ),
    (
        r'np\.|numpy\.(core|dtype)|compiled using NumPy',
        f'the installed numpy does not fit the packages compiled with another one: `{SETUP}`',
    ),
    (r'is used but incompatible', f'two versions that do not fit were mixed: `{SETUP}`'),
    (r'No module named', f'a package is missing: `{SETUP}`'),
)


def read_pins(requirements: Path) -> dict[str, str]:
    """Reads ``name==version`` lines, following ``-r`` lines; environment markers are dropped.

    Args:
        requirements: A requirements file.

    Returns:
        Versions by distribution name; packages with a marker (``; sys_platform ...``) are left out,
        since whether they apply is pip's decision.

    Raises:
        FileNotFoundError: If the file, or one that it includes, does not exist.
    """
    if not requirements.is_file():
        raise FileNotFoundError(
            f'The requirements file {requirements} does not exist; give one with --requirements.'
        )
    pins: dict[str, str] = {}
    for line in requirements.read_text().splitlines():
        line = line.split('#')[0].strip()
        if line.startswith('-r '):
            pins.update(read_pins(requirements.parent / line[3:].strip()))
        elif '==' in line and ';' not in line:
            name, version = line.split('==')
            pins[name.strip()] = version.strip()
    return pins


def installed_versions() -> dict[str, str]:
    """Versions of all installed distributions, by normalised name (lower case, dashes)."""
    return {
        re.sub(r'[-_.]+', '-', dist.name).lower(): dist.version for dist in metadata.distributions()
    }


def stack_of(installed: Mapping[str, str]) -> str:
    """The requirements file, in the repository, of the stack that the installed mmcv is of.

    Args:
        installed: Installed versions, as `installed_versions` gives them.
    """
    second = {'mmcv', PURE_MMCV} & set(installed)
    return STACKS[bool(second) and FORKS['mmcv'] not in installed]


def version_of(name: str, installed: Mapping[str, str]) -> str | None:
    """The installed version of a pinned package, None if it is missing.

    Args:
        name: As it is pinned. In the place of 'mmcv' mmcv-lite will do: the same without ops.
        installed: Installed versions, as `installed_versions` gives them.
    """
    stand_in = PURE_MMCV if name == 'mmcv' else name
    return installed.get(name.lower().replace('_', '-'), installed.get(stand_in))


def check_versions(pins: Mapping[str, str], installed: Mapping[str, str]) -> list[str]:
    """Compares what is installed with what was tested, and looks for packages that clash.

    Args:
        pins: Tested versions by name, as `read_pins` gives them.
        installed: Installed versions, as `installed_versions` gives them.

    Returns:
        One sentence for each problem.
    """
    problems = []
    for name, wanted in pins.items():
        # a local label (2.11.0+cu130) names a build of the same release
        found = (version_of(name, installed) or '').split('+')[0]
        if found != wanted:
            state = f'{name} {found} is installed' if found else f'{name} is not installed'
            problems.append(f'{state}, {wanted} was tested: `{SETUP}` installs it.')
    for old, fork in FORKS.items():
        if old in installed and fork in installed:
            problems.append(
                f'{old} {installed[old]} was installed over {fork} {installed[fork]} and both own '
                f"the same files (mmengine does this when a config says `_base_ = 'mmseg::...'`): "
                f'`{SETUP}` removes the stranger and repairs the files.'
            )
    for whole in ('mmcv', FORKS['mmcv']):
        if PURE_MMCV in installed and whole in installed:
            problems.append(
                f'{PURE_MMCV} and {whole} are both installed and own the same files: `{SETUP}` '
                'leaves one of them.'
            )
    if 'opencv-python' in installed and 'opencv-python-headless' in installed:
        problems.append(
            'opencv-python and opencv-python-headless are both installed and own the same files: '
            f'`{SETUP}` leaves the second, which needs no libGL.'
        )
    return problems


def explain(what: str, error: BaseException) -> str:
    """Turns an error into a sentence with its cure.

    Args:
        what: What was tried, as the subject of the sentence ('import mmcv.ops').
        error: What came of it.

    Returns:
        One sentence: what failed, the error, the cure.
    """
    text = f'{type(error).__name__}: {error}'.split('\n')[0]
    if 'transformers' in str(error) or _raised_in(error, 'transformers'):
        cure = (
            'the installed transformers breaks it, and nothing here needs it: '
            f'`HGKD_VENV=DIR {SETUP}` makes an environment without'
        )
    else:
        matches = (cure for pattern, cure in _CURES if re.search(pattern, str(error)))
        cure = next(matches, f'install the tested versions with `{SETUP}`')
    return f'{what} failed ({text}); {cure}.'


def attempt(what: str, check: Callable[[], None]) -> str | None:
    """Runs a check.

    Args:
        what: What it tries, as the subject of a sentence.
        check: Raises if something is wrong.

    Returns:
        What went wrong as `explain` says it, or None.
    """
    # the checks report whatever third-party code raises, of any type; what it prints when it is
    # imported (mmdet: 'Could not import OneDL') is no finding
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            check()
    except Exception as error:
        return explain(what, error)
    return None


def run_nms(device: str = 'cpu') -> None:
    """Runs mmcv's non-maximum suppression on three boxes.

    Raises:
        RuntimeError: It gives another result than it should; or any error of mmcv's.
    """
    import torch
    from mmcv.ops import nms

    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]], device=device)
    _, keep = nms(boxes, torch.tensor([0.9, 0.8, 0.7], device=device), 0.5)
    if keep.tolist() != [0, 2]:
        raise RuntimeError(f'nms kept boxes {keep.tolist()} where [0, 2] is right')


def check_running(*, ops: bool) -> list[str]:
    """Builds one model of each OpenMMLab package that can run, and tries an op of mmcv's.

    Args:
        ops: mmcv should have its compiled ops: one is run, and a model of mmdet is built, which
            cannot even be imported without.

    Returns:
        One sentence for each of these that failed. Stops at the first that all others need.
    """
    first: list[tuple[str, Callable[[], None]]] = [('import torchvision', _torchvision)]
    if ops:
        first.append(('mmcv.ops.nms on the CPU', run_nms))
    for what, check in first:
        problem = attempt(what, check)
        if problem:
            return [problem]
    checks: list[tuple[str, Callable[[], None]]] = [
        ('Building an mmpretrain classifier (ResNet-18)', _mmpretrain),
        ('Building mmseg UperNet', _mmseg),
    ]
    if ops:
        checks.append(('Building mmdet Mask R-CNN', _mmdet))
    return [problem for what, check in checks if (problem := attempt(what, check))]


def notes(*, ops: bool) -> list[str]:
    """Sentences on what works but is worth knowing.

    Args:
        ops: mmcv has its compiled ops.
    """
    import torch

    remarks = []
    if not ops:
        remarks.append(
            'mmcv is pure Python, without its compiled ops, which only MMDetection needs: '
            f'`{SETUP} --ops` compiles them.'
        )
    if not torch.cuda.is_available():
        remarks.append('torch sees no CUDA device: everything runs on the CPU.')
    elif ops and (problem := attempt('mmcv.ops.nms on the GPU', lambda: run_nms('cuda'))):
        remarks.append(
            f'{problem} Pre-training does not use it; Mask R-CNN on the GPU does. Compile mmcv '
            f'where nvcc of CUDA {torch.version.cuda} is found: `{SETUP} --rebuild-mmcv`.'
        )
    return remarks


def _raised_in(error: BaseException, package: str) -> bool:
    trace = error.__traceback__
    while trace is not None:
        if f'/{package}/' in trace.tb_frame.f_code.co_filename:
            return True
        trace = trace.tb_next
    return False


def _torchvision() -> None:
    import torchvision  # noqa: F401


def _mmpretrain() -> None:
    import mmpretrain.models  # noqa: F401
    from mmpretrain.registry import MODELS

    MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='ResNet', depth=18),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=2, in_channels=512),
            _scope_='mmpretrain',
        )
    )


def _mmdet() -> None:
    import mmdet.datasets  # it needs packages that the models do not
    import mmdet.models
    from mmdet.registry import MODELS

    MODELS.build(_base_model(mmdet.__file__, 'mask-rcnn_r50_fpn.py', 'mmdet'))


def _mmseg() -> None:
    import mmseg.datasets
    import mmseg.models
    from mmseg.registry import MODELS

    MODELS.build(_base_model(mmseg.__file__, 'upernet_r50.py', 'mmseg'))


def _base_model(package_file: str, name: str, scope: str) -> dict:
    from mmengine.config import Config

    path = Path(package_file).parent / '.mim/configs/_base_/models' / name
    return {**Config.fromfile(path).model, '_scope_': scope}
