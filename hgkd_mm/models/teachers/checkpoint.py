"""Weights of teachers, read from a file that is not trusted."""

from __future__ import annotations

from pathlib import Path

from hgkd_mm.utils.checkpoint_file import Wording, read_tensors

_WORDING = Wording(
    kind='teacher checkpoint',
    given_by='config key checkpoint',
    trust='trust_checkpoint=True',
    where='beside the config key checkpoint',
)


def read_weights(checkpoint: str | Path | None, *, trust_checkpoint: bool = False) -> dict:
    """Reads the tensors of a checkpoint; see `hgkd_mm.utils.checkpoint_file.read_file`.

    Args:
        checkpoint: path, ``http(s)://`` URL (kept in torch.hub's cache), or any address that
            MMEngine's file backends read. ``.safetensors`` or a file of ``torch.save``.
        trust_checkpoint: allow the file to run pickled code if it cannot be read without.

    Returns:
        Name to tensor, on the CPU, from ``state_dict``, ``model`` or ``module`` if the file has
        one of these, else from its top level. A leading ``module.`` of DDP is removed.

    Raises:
        ValueError: ``checkpoint`` is None, or the file holds no tensors.
        FileNotFoundError: there is no such file, or it could not be downloaded.
        RuntimeError: the file is broken, or wants to run code and is not trusted.
    """
    if not checkpoint:
        raise ValueError(
            'A teacher without pre-trained weights would teach noise: checkpoint is '
            f'{checkpoint!r}. Give the path or URL of a weight file (config key checkpoint).'
        )
    return read_tensors(str(checkpoint), _WORDING, trusted=trust_checkpoint)
