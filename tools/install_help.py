"""Questions of tools/setup_env.sh, while the packages are not there yet.

python tools/install_help.py diagnose LOG     # prints why a step failed
python tools/install_help.py can-compile      # prints what is missing, if anything
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

from hgkd_mm.utils.environment import has_ops  # noqa: E402

_FAILURES = (
    (
        r'No space left on device|Errno 28',
        'the disk is full; free about 8 GB, or put the environment elsewhere with HGKD_VENV, and '
        'set TMPDIR if /tmp is small.',
    ),
    (
        r'NewConnectionError|NameResolutionError|Could not resolve|ConnectTimeout|ReadTimeout'
        r'|Read timed out|ProxyError|SSLError|Network is unreachable|Connection (refused|reset)',
        'the package index could not be reached; check the network, or name a proxy '
        '(https_proxy=...) or a mirror (PIP_INDEX_URL=...), and run this again: what is done is '
        'kept.',
    ),
    (
        r'No matching distribution|Could not find a version',
        'pip finds no file of {package}: either the index cannot be reached (network, '
        'PIP_INDEX_URL, PIP_NO_INDEX), or it has none for this Python and system.',
    ),
    (
        r'fatal error: Python\.h',
        'the headers of Python are missing; install them (Debian or Ubuntu: `apt install '
        'python3-dev`), or use another Python through HGKD_PYTHON.',
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
)


def diagnose(log: str) -> str:
    """The clause after "the step failed:": why, and what to do, by the output of the step."""
    for pattern, cause in _FAILURES:
        if re.search(pattern, log):
            found = re.findall(r'No matching distribution found for (\S+)', log)
            return cause.format(package=found[-1] if found else 'a pinned package')
    return 'the message is above.'


def missing_to_compile() -> str | None:
    """What is missing to compile mmcv for this Python; None if nothing is."""
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

    if not torch.cuda.is_available():
        return True
    from torch.utils.cpp_extension import CUDA_HOME

    nvcc = Path(CUDA_HOME or '', 'bin', 'nvcc')
    if CUDA_HOME is None or not nvcc.exists():
        return False
    text = subprocess.run([nvcc, '--version'], capture_output=True, text=True).stdout
    return f'release {torch.version.cuda.split(".")[0]}.' in text


def main(arguments: list[str]) -> int:
    """Answers one question; returns the exit status."""
    if arguments[0] == 'diagnose':
        print(diagnose(Path(arguments[1]).read_text(errors='replace')))
        return 0
    if arguments[0] == 'can-compile':
        missing = missing_to_compile()
        print(missing or '')
        return int(missing is not None)
    if arguments[0] == 'has-ops':
        return int(not has_ops())
    return int(not cuda_compiler_fits())


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
