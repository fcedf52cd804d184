"""Looks at the machine, the packages, what runs on it, and what a config needs.

    python tools/doctor.py [CONFIG ...] [--cfg-options KEY=VALUE ...]

Prints a sentence for each problem and how to repair it, and exits with status 1 if there is one.
Nothing is downloaded, and nothing written. docs/doctor.md shows what it prints.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# hgkd_mm may be what is not installed
sys.path.insert(0, str(ROOT))

from hgkd_mm.doctor import examine  # noqa: E402


def main(arguments: list[str] | None = None) -> int:
    """Prints the report; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('configs', nargs='*', metavar='CONFIG', help='config files to look at')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='override config values, as for tools/train.py',
    )
    args = parser.parse_args(arguments)
    problems = 0
    for section in examine(ROOT, args.configs, args.cfg_options):
        print(section.text(), end='\n\n', flush=True)
        problems += len(section.problems)
    print(f'{problems} problem(s).' if problems else 'No problem found.')
    return int(bool(problems))


if __name__ == '__main__':
    # a package compiled for another torch may end the process: shows where
    faulthandler.enable()
    logging.disable(logging.WARNING)
    warnings.simplefilter('ignore')
    sys.exit(main())
