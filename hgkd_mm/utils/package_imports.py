"""A module finder that repairs the imports of OpenMMLab's packages.

- mmpretrain imports its multi-modal models wherever transformers and pycocotools are installed.
  They are written for transformers 4: with 5 ``import mmpretrain.models`` ends in a TypeError.
  Nothing here uses them, so mmpretrain's own switch leaves them out.
- mmdet's models end in a ModuleNotFoundError half-way where mmcv has no compiled ops, also when
  mmpretrain tries them. Here they end in one at once, which names the command that compiles them.
- Some modules print or warn that a package is absent that nothing here needs, and many have escape
  sequences that Python 3.12 warns of. These messages, and no others, are dropped.

``import hgkd_mm`` installs the finder; ``import mmpretrain.models`` before it keeps the
multi-modal models. Imports the standard library only.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType, ModuleType

from .environment import has_ops, missing_ops

_PACKAGES = ('mmcv', 'mmdet', 'mmengine', 'mmpretrain', 'mmseg')
_SWITCH = 'mmpretrain.utils.dependency'


@contextmanager
def _without(message: str) -> Iterator[None]:
    # mmengine's print_log without a logger prints, at any level. A name in its module hides the
    # builtin from it alone.
    import mmengine.logging.logger as printing

    names = vars(printing)
    before = names.get('print', print)

    def filtered(*values: object, **how: object) -> None:
        if not re.match(message, ''.join(map(str, values))):
            before(*values, **how)

    names['print'] = filtered
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', message)
            yield
    finally:
        names['print'] = before


_NO_ONEDL = 'Could not import OneDL'
# What modules say at their import, as the beginning of the message.
_MESSAGES = {
    # without ops the module says so; with ops, that one of its names has moved
    'mmcv.cnn.bricks.transformer': r'(Fail to import )?``MultiScaleDeformableAttention``',
    'mmdet.evaluation.metrics.faster_coco_metric': 'faster_coco_eval is not installed',
    'mmdet.datasets': _NO_ONEDL,
    'mmdet.datasets.transforms': _NO_ONEDL,
    'mmpretrain.datasets': _NO_ONEDL,
    'mmseg.datasets': _NO_ONEDL,
    'mmseg.datasets.transforms': _NO_ONEDL,
}


class _Loader(SourceFileLoader):
    """Python's loader of source files, without the messages, and with mmpretrain's switch."""

    def get_code(self, fullname: str) -> CodeType | None:
        with warnings.catch_warnings():
            # of escape sequences: DeprecationWarning up to Python 3.11
            warnings.simplefilter('ignore', SyntaxWarning)
            warnings.simplefilter('ignore', DeprecationWarning)
            return super().get_code(fullname)

    def exec_module(self, module: ModuleType) -> None:
        message = _MESSAGES.get(module.__name__)
        with _without(message) if message else nullcontext():
            super().exec_module(module)
        if module.__name__ == _SWITCH:
            module.WITH_MULTIMODAL = False


class OpenMMLabFinder:
    """Finds modules of OpenMMLab's packages as the finders after it do, for `_Loader`."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See ``importlib.abc.MetaPathFinder``."""
        if name.partition('.')[0] not in _PACKAGES:
            return None
        if name == 'mmdet.models' and not has_ops():
            # of this kind, because mmseg does without mmdet on no other
            raise ModuleNotFoundError(missing_ops('MMDetection'), name=name)
        others = sys.meta_path[sys.meta_path.index(self) + 1 :]
        specs = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def install() -> None:
    """Puts the finder before all others."""
    sys.meta_path.insert(0, OpenMMLabFinder())
