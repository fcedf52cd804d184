"""Looks at the machine, the packages, what runs on it, and what a config needs.

    python tools/doctor.py [CONFIG ...] [--build] [--cfg-options KEY=VALUE ...]

Prints a sentence for each problem, with its cure, and exits with status 1 if there is one.
Nothing is downloaded, and nothing written. docs/doctor.md shows what it prints.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# hgkd_mm may be what is not installed
sys.path.insert(0, str(ROOT))

from hgkd_mm.doctor import examine  # noqa: E402


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('configs', nargs='*', metavar='CONFIG', help='config files to look at')
    parser.add_argument(
        '--build', action='store_true', help='also build the model and the optimizer, on the CPU'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='override config values, as for tools/train.py',
    )
    args = parser.parse_args()
    for option in args.cfg_options:
        if '=' not in option:
            parser.error(f"--cfg-options takes KEY=VALUE, not '{option}'.")
    return args


def main() -> int:
    """Prints the report; returns the exit status."""
    args = parse_args()
    problems = 0
    report = examine(root=ROOT, configs=args.configs, options=args.cfg_options, build=args.build)
    for section in report:
        print(section.text(), end='\n\n', flush=True)
        problems += len(section.problems)
    print(f'{problems} problem(s), each with its cure above.' if problems else 'No problem found.')
    return int(bool(problems))


if __name__ == '__main__':
    sys.exit(main())
