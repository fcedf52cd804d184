#!/usr/bin/env bash
# Guess: `pip install --no-deps modelindex` gives the module `modelindex`, which onedl-mmpretrain
#   1.3.6 and mmpretrain 1.2.0 name among their requirements and import.
# Behaviour: the wheel of modelindex 0.0.2 holds metadata only. It asks for model-index, and that
#   one holds the module, whose import needs a third package, ordered-set. Whoever pins every
#   package and installs with --no-deps gets no module and no error from pip.
# Versions: modelindex 0.0.2, model-index 0.1.11, ordered-set 4.1.0, Python 3.11, seen on 2026-11-27.
# Here: tools/gpu_wheels.sh takes model-index.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
trap 'echo "NOT TRIED: a step before the question failed."; exit 2' ERR
python3 -m venv "$work/venv"
pip() { "$work/venv/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }

pip download --no-deps --dest "$work" modelindex==0.0.2
names="$("$work/venv/bin/python" -m zipfile --list "$work"/modelindex-0.0.2-*.whl)"
echo "$names"
if grep -v 'dist-info' <<<"$names" | grep -q '\.py'; then echo 'CHANGED: the wheel holds a module.'; exit 1; fi

pip install --no-deps modelindex==0.0.2
if "$work/venv/bin/python" -c 'import modelindex'; then echo 'CHANGED: the module can be imported.'; exit 1; fi
pip install --no-deps model-index==0.1.11 ordered-set==4.1.0 click==8.3.1 markdown==3.10 pyyaml==6.0.3
"$work/venv/bin/python" -c 'import modelindex; print("with model-index:", modelindex.__name__)'
echo 'As described: the wheel of modelindex is empty, model-index holds its module.'
