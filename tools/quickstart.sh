#!/usr/bin/env bash
# Sets up this machine if needed, then distils a small CNN from a small MAE on the embedded data.
#     bash tools/quickstart.sh [--data DIR] [--train-teacher] [--transfer] [--seed N]
set -euo pipefail
if [[ -n "${HGKD_VENV:-}" && "$HGKD_VENV" != /* ]]; then export HGKD_VENV="$PWD/$HGKD_VENV"; fi
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
bash "$root/tools/setup_env.sh"
# from where it was called, so that --data DIR means what it says
exec "${HGKD_VENV:-$root/.venv}/bin/python" "$root/tools/quickstart.py" "$@"
