"""Where the quickstart's images come from."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config


def folder_options(folder: Path, config: Path) -> dict[str, object]:
    """Overrides that train a Scenes config on any folder of unlabelled images.

    Args:
        folder: nested folders of images of any size and kind; see ``UnlabelledFolder``.
        config: the Scenes config, whose crops and flips are kept.
    """
    pipeline = Config.fromfile(config).train_dataloader.dataset.pipeline
    dataset = dict(
        _delete_=True,
        type='UnlabelledFolder',
        data_root=str(folder),
        pipeline=[dict(type='LoadColorImage'), *pipeline[1:]],
    )
    return {'train_dataloader.dataset': dataset}
