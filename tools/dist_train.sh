#!/usr/bin/env bash
# Trains with one process a GPU (with several processes on the CPU where there is none):
#   tools/dist_train.sh CONFIG GPUS [flags of tools/train.py]
# On several machines, on each of them: NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 [PORT=29500] tools/dist_train.sh ...
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launchers.sh"

(( $# >= 2 )) || fail "needs a config and a number of processes: tools/dist_train.sh CONFIG GPUS [flags of tools/train.py]"
need_config "$1"
run_distributed train.py "$2" "$1" "${@:3}"
