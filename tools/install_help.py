"""Questions of tools/setup_env.sh, while the packages may not be there yet.

python tools/install_help.py diagnose LOG     # prints why a step failed
python tools/install_help.py tested PINS      # status 1: prints what is not the tested version
python tools/install_help.py can-compile      # status 1: prints what is missing
python tools/install_help.py cuda-compiler    # status 1: mmcv can be built for CPU only
python tools/install_help.py has-ops          # status 1: mmcv has no compiled ops
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

# hgkd_mm may be what is not installed
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hgkd_mm.utils.environment import (  # noqa: E402
    check_versions,
    has_ops,
    installed_versions,
    read_pins,
)

_FAILURES = (
    (
        r'No space left on device|Errno 28',
        'the disk is full; free about 8 GB, or put the environment elsewhere with HGKD_VENV, and '
        'set TMPDIR if /tmp is small.',
    ),
    (
        r'NewConnectionError|NameResolutionError|Could not resolve|ConnectTimeout|ReadTimeout'
        r'|Read timed out|ProxyError|SSLError|Network is unreachable|Connection (refused|reset)'
        r'|No matching distribution',
        'the package index could not be reached, or has no file for this Python and system; check '
        'the network, or name a proxy (https_proxy=...) or a mirror (PIP_INDEX_URL=...), and run '
        'this again: what is done is kept.',
    ),
    (
        r'Killed|signal 9|annot allocate memory',
        'the machine ran out of memory; run this again with MAX_JOBS=1 (needs about 2 GB).',
    ),
    (
        r'Error compiling objects|(gcc|g\+\+|c\+\+|nvcc).{0,20} failed|ninja.*non-zero exit',
        'mmcv did not compile: the message is above. It needs a C++17 compiler (g++ 9 or newer), '
        'and for its GPU ops the nvcc of the CUDA that torch was built for.',
    ),
    (r'', 'the message is above.'),
)


def diagnose(log: str) -> str:
    """The clause after "the step failed:": why, and what to do, by the output of the step."""
    return next(cause for pattern, cause in _FAILURES if re.search(pattern, log))


def missing_to_compile() -> str | None:
    """What is missing to compile mmcv for this Python."""
    compiler = os.environ.get('CXX', 'c++')
    if not (shutil.which(compiler.split()[0]) or shutil.which('g++')):
        return (
            f'no C++ compiler was found ({compiler} and g++ were tried) and mmcv has to be '
            'compiled; install one (Debian or Ubuntu: `apt install build-essential`), or name it '
            'with CXX=/path/to/g++.'
        )
    header = Path(sysconfig.get_paths()['include'], 'Python.h')
    if not header.exists():
        version = f'{sys.version_info.major}.{sys.version_info.minor}'
        return (
            f'{header} does not exist and mmcv has to be compiled; install the headers of Python '
            f'(Debian or Ubuntu: `apt install python{version}-dev`), or use another Python through '
            'HGKD_PYTHON.'
        )
    return None


def cuda_compiler_fits() -> bool:
    """False where torch sees a GPU but no nvcc of the major CUDA version torch was built for."""
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    if not torch.cuda.is_available():
        return True
    nvcc = Path(CUDA_HOME or '', 'bin', 'nvcc')
    if not nvcc.exists():
        return False
    text = subprocess.run([nvcc, '--version'], capture_output=True, text=True).stdout
    return f'release {torch.version.cuda.split(".")[0]}.' in text


def main(question: str, path: str = '') -> int:
    """Answers one question; returns the exit status."""
    if question == 'cuda-compiler':
        return int(not cuda_compiler_fits())
    if question == 'has-ops':
        return int(not has_ops())
    if question == 'diagnose':
        print(diagnose(Path(path).read_text(errors='replace')))
        return 0
    if question == 'tested':
        broken, untested = check_versions(read_pins(Path(path)), installed_versions())
        answers = broken + untested
    else:
        answers = [missing] if (missing := missing_to_compile()) else []
    if answers:
        print('\n'.join(answers))
    return int(bool(answers))


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
