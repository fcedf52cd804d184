#!/usr/bin/env bash
# Sets up this machine if needed, then distils a small CNN from a small MAE on the embedded data.
#     bash tools/quickstart.sh [--data DIR] [--train-teacher] [--transfer] [--epochs N] [--seed N]
set -euo pipefail
if [[ -n "${HGKD_VENV:-}" && "$HGKD_VENV" != /* ]]; then export HGKD_VENV="$PWD/$HGKD_VENV"; fi
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="${HGKD_VENV:-$root/.venv}"
ops=()
for argument in "$@"; do
  # argparse takes shorter forms of --transfer as well
  if [[ "$argument" == --tran* ]]; then ops=(--ops); fi
done
# the summary tells how long the set-up took
mkdir -p "$root/work_dirs"
export HGKD_SETUP_TIMES="$root/work_dirs/setup.json"
bash "$root/tools/setup_env.sh" ${ops[@]+"${ops[@]}"}
# from where it was called, so that --data DIR means what it says
exec "$venv/bin/python" "$root/tools/quickstart.py" "$@"
