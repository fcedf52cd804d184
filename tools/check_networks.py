"""Runs every network of the tests through the sparse engine and writes the table of errors.

    python tools/check_networks.py                  # all of them, into docs/networks.md
    python tools/check_networks.py timm/resnet      # those whose name contains this, printed only

The error is the largest difference to an independent dense reference in float64, relative to
the largest value of the tensor, over outputs, all gradients and running statistics.
"""

import argparse
import logging
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]
warnings.filterwarnings('ignore')

from helpers.networks import MMPRETRAIN, NETWORKS, errors_of  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402
from rich.progress import track  # noqa: E402

from hgkd_mm.benchmark import versions  # noqa: E402
from hgkd_mm.sparse import ENGINES  # noqa: E402

HEADER = """# Networks that run on the sparse engine

Each network runs unmodified on three images of 2 x 3 cells with different numbers of visible cells, in float64 and training mode.
The max error is the largest difference to an independent dense reference (`tests/helpers/sparse_reference.py`), relative to the largest value of the tensor.
It covers outputs, the gradients of all parameters and of the images, and running statistics.
Most networks are narrower or shorter than the default where their library allows it (`tests/helpers/networks.py`).

`python tools/check_networks.py` writes this page ({versions}).

| source | network | {engines} |
|---|---|{rule}|
"""  # noqa: E501  one sentence a line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('name', nargs='?', default='', help='part of the names to run')
    args = parser.parse_args()
    logging.disable(logging.INFO)
    init_default_scope('mmpretrain')
    chosen = [name for name in NETWORKS if args.name in name]
    if not chosen:
        sys.exit(f'check_networks: no network has {args.name!r} in its name.')
    rows = []
    for name in track(chosen, description='networks'):
        errors = errors_of(name)
        source, network = name.split('/')
        kind = f' ({MMPRETRAIN[network]["type"]})' if source == 'mmpretrain' else ''
        cells = ' | '.join(f'{max(errors[engine].values()):.0e}' for engine in ENGINES)
        rows.append(f'| {source} | {network}{kind} | {cells} |')
    table = '\n'.join(rows)
    if args.name:
        print(table)
        return
    found = versions('cpu')
    header = HEADER.format(
        versions=', '.join(f'{key} {found[key]}' for key in ('torch', 'device')),
        engines=' | '.join(ENGINES),
        rule='|'.join('---' for _ in ENGINES),
    )
    (ROOT / 'docs' / 'networks.md').write_text(f'{header}{table}\n')
    print(f'{len(rows)} networks: docs/networks.md')


if __name__ == '__main__':
    main()
