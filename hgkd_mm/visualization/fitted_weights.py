"""Weights of a checkpoint into a network, all of them or none, with a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from hgkd_mm.utils.checkpoint_file import Wording, find_tensors, local_file, read_file

PREFIX = 'backbone.'
_WORDING = Wording(
    kind='checkpoint', given_by='argument CHECKPOINT', trust='the flag --trust-checkpoint'
)


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What of a checkpoint went into a network.

    Attributes:
        loaded: number of weights loaded, buffers included.
        missing: names that the network has and the checkpoint has not.
        unexpected: names that the network should have and has not.
        wrong_shape: names of different shapes.
        not_used: names that are not meant for this network.
    """

    loaded: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    wrong_shape: tuple[str, ...] = ()
    not_used: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether every weight found its place."""
        return not (self.missing or self.unexpected or self.wrong_shape)

    def __str__(self) -> str:
        parts = [f'{self.loaded} weights loaded']
        for what in ('missing', 'unexpected', 'wrong_shape', 'not_used'):
            names = getattr(self, what)
            parts.append(f'{len(names)} {what.replace("_", " ")}{_listed(names)}')
        return ', '.join(parts)


def read_tensors(checkpoint: str | Path, *, trust_checkpoint: bool = False) -> dict[str, Tensor]:
    """Name to tensor of a checkpoint.

    Raises:
        FileNotFoundError: there is no such file.
        RuntimeError: it is broken, or wants to run code and is not trusted.
        ValueError: it holds no tensors.
    """
    source = str(checkpoint)
    with local_file(source, _WORDING) as path:
        content = read_file(path, source, _WORDING, trusted=trust_checkpoint)
    return find_tensors(content, source)


def load_model(model: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> LoadReport:
    """Fills a whole model.

    Args:
        model: the model.
        tensors: in its own naming.
        source: where they come from, for messages.

    Raises:
        ValueError: a weight is missing, unexpected or of another shape.
    """
    return _fill(
        model,
        tensors,
        hint=(
            f'{source} was not made with this config: give the config of its run, or --backbone '
            'to look at the backbone alone'
        ),
    )


def load_backbone(backbone: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> LoadReport:
    """Fills a backbone with those under 'backbone.', or from a file of a bare backbone.

    In the latter names whose first part the network does not have, as ``fc``, are not used.

    Args:
        backbone: the network.
        tensors: name to tensor.
        source: where they come from, for messages.

    Raises:
        ValueError: a weight is missing, unexpected or of another shape.
    """
    if any(name.startswith(PREFIX) for name in tensors):
        own = {
            name.removeprefix(PREFIX): value
            for name, value in tensors.items()
            if name.startswith(PREFIX)
        }
        left = tuple(name for name in tensors if not name.startswith(PREFIX))
    else:
        parts = {name.split('.')[0] for name in backbone.state_dict()}
        own = {name: value for name, value in tensors.items() if name.split('.')[0] in parts}
        left = tuple(name for name in tensors if name not in own)
    hint = f'{source} is of another network than model.backbone of the config'
    return _fill(backbone, own, hint=hint, not_used=left)


def _fill(
    module: nn.Module, tensors: Mapping[str, Tensor], *, hint: str, not_used: tuple[str, ...] = ()
) -> LoadReport:
    expected = {name: value.shape for name, value in module.state_dict().items()}
    common = [name for name in expected if name in tensors]
    wrong = tuple(name for name in common if tensors[name].shape != expected[name])
    report = LoadReport(
        loaded=len(common) - len(wrong),
        missing=tuple(name for name in expected if name not in tensors),
        unexpected=tuple(name for name in tensors if name not in expected),
        wrong_shape=wrong,
        not_used=not_used,
    )
    if not report.fits:
        raise ValueError(f'{hint} ({report}).')
    module.load_state_dict(dict(tensors), strict=True)
    return report


def _listed(names: tuple[str, ...], limit: int = 4) -> str:
    if not names:
        return ''
    more = ', ...' if len(names) > limit else ''
    return f' ({", ".join(names[:limit])}{more})'
