#!/usr/bin/env bash
# Guess: a wheel's name, version and tags say what is in it; the same sdist gives the same package,
#   and a package that needs torch to build its extension fails without it.
# Behaviour: onedl-mmcv leaves its compiled ops out where its build cannot import torch, as under
#   pip's build isolation, without a word. `pip wheel` gives a py3-none-any wheel of the same name
#   and version. If it gets into pip's cache, a later `pip install --no-build-isolation`, made to
#   compile the ops, takes it from there. `mmcv.__version__` is the same; `import mmcv.ops` fails.
# Versions: onedl-mmcv 2.3.6, pip 25.3, Python 3.11, seen on 2026-11-27.
# Here: tools/setup_env.sh looks for mmcv._ext, and keeps wheels without it out of pip's cache.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
trap 'echo "NOT TRIED: a step before the question failed."; exit 2' ERR
python3 -m venv "$work/venv"
python="$work/venv/bin/python"
pip() { "$python" -m pip --quiet --disable-pip-version-check "$@"; }
pip install pip==25.3
# A cache of this script's own: yours keeps what it has.
export PIP_CACHE_DIR="$work/cache"
pip wheel --no-deps --wheel-dir "$work/wheels" onedl-mmcv==2.3.6
ls "$work/wheels"
# What a set-up does that wants the ops: no isolation, and mmcv's own switch.
pip install setuptools==81.0.0
log="$(MMCV_WITH_OPS=1 "$python" -m pip --disable-pip-version-check install --no-deps --no-build-isolation onedl-mmcv==2.3.6)"
if ! grep -q 'Using cached onedl_mmcv-2.3.6-py3-none-any.whl' <<<"$log"; then echo "$log"; echo 'CHANGED: it does not come from the cache.'; exit 1; fi
files="$("$python" -m pip --disable-pip-version-check show --files onedl-mmcv)"
grep -E '^(Name|Version)' <<<"$files"
if ! ls "$work"/wheels/onedl_mmcv-2.3.6-py3-none-any.whl >/dev/null 2>&1; then echo 'CHANGED: the wheel holds compiled code.'; exit 1; fi
if grep -q '_ext\..*so' <<<"$files"; then echo 'CHANGED: the ops are there.'; exit 1; fi
echo 'As described: onedl-mmcv 2.3.6 is installed, without its ops and without a word.'
