#!/usr/bin/env bash
# Sets up this machine if needed, then distils a small CNN from a small MAE on the embedded data.
#     bash tools/quickstart.sh [--data DIR] [--train-teacher] [--seed N]
set -euo pipefail
cd "$(dirname "$0")/.."
bash tools/setup_env.sh
exec "${HGKD_VENV:-.venv}/bin/python" tools/quickstart.py "$@"
