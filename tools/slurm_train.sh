#!/usr/bin/env bash
# Trains under Slurm: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [flags of tools/train.py]
# GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5) and SRUN_ARGS come from the environment.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launchers.sh"

(( $# >= 3 )) || fail "needs a partition, a job name and a config: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [flags of tools/train.py]"
need_config "$3"
run_slurm train.py "$@"
