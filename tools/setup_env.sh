#!/usr/bin/env bash
# Makes the Python environment: a virtual environment with the tested packages, hgkd_mm itself, and
# a check that it all runs. mmcv is compiled where its ops are asked for. Safe to run again.
set -euo pipefail
if [[ -n "${HGKD_VENV:-}" && "$HGKD_VENV" != /* ]]; then HGKD_VENV="$PWD/$HGKD_VENV"; fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root="$PWD"

usage() {
  cat <<'TEXT'
usage: bash tools/setup_env.sh [--stack default|openmmlab] [--ops] [--rebuild-mmcv]

  --stack default     requirements.txt into .venv (the default)
  --stack openmmlab   requirements/openmmlab.txt into .venv-openmmlab
  --ops               compile mmcv's ops, which MMDetection needs (8 to 12 minutes on 2 cores)
  --rebuild-mmcv      compile them anew, for another CUDA or torch

  HGKD_VENV           put the environment there instead
  HGKD_PYTHON         make it with this Python instead of the first fitting one found
  MAX_JOBS            compile with so many processes
TEXT
}
say() { printf '%s\n' "$*"; }
fail() { printf '\nSet-up stopped: %s\n' "$*" >&2; exit 1; }

stack=default
ops=no
rebuild=no
while (( $# > 0 )); do
  case "$1" in
    --stack) (( $# > 1 )) || fail "--stack needs a name: default or openmmlab."; stack="$2"; shift 2 ;;
    --ops) ops=yes; shift ;;
    --rebuild-mmcv) ops=yes; rebuild=yes; shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; fail "there is no option '$1'." ;;
  esac
done
others='mmcv mmcv-lite mmengine mmpretrain mmdet mmsegmentation'
case "$stack" in
  default) requirements=requirements.txt; venv="$root/.venv"; versions='3.11 3.12 3.13 3.10' ;;
  openmmlab)
    requirements=requirements/openmmlab.txt; venv="$root/.venv-openmmlab"; versions='3.11 3.10'
    others='onedl-mmcv onedl-mmengine onedl-mmpretrain onedl-mmdetection onedl-mmsegmentation' ;;
  *) fail "--stack is 'default' or 'openmmlab', not '$stack'." ;;
esac
venv="${HGKD_VENV:-$venv}"
python="$venv/bin/python"
mmcv="$(grep -E '^(onedl-)?mmcv==' "$requirements")"
# OneDL's has one name with ops and without; OpenMMLab's without is a package of its own
pure_mmcv="${mmcv/#mmcv==/mmcv-lite==}"
# imaug too goes in without what it asks for: opencv-python, which overwrites the headless one
mm_packages="$(grep -E '^(onedl-)?mm|^imaug' "$requirements" | grep -v "$mmcv")"
wheels="$(grep -E '^[a-z].*==' "$requirements" | grep -vE '^(onedl-)?mm|^imaug')"

python_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }
fits() { [[ -n "$1" && " $versions " == *" $1 "* ]]; }
version_of() { "$python" -c "import importlib.metadata as m; print(m.version('$1'))" 2>/dev/null || true; }
has_ops() { "$python" tools/install_help.py has-ops; }
pip() { "$python" -m pip --disable-pip-version-check --retries 2 "$@"; }

find_python() {
  local candidate
  if [[ -n "${HGKD_PYTHON:-}" ]]; then
    version="$(python_version "$HGKD_PYTHON")"
    [[ -n "$version" ]] || fail "HGKD_PYTHON=$HGKD_PYTHON does not run; give the path of a Python ${versions// /, }."
    fits "$version" || fail "HGKD_PYTHON=$HGKD_PYTHON is Python $version; this stack runs on ${versions// /, }."
    base="$HGKD_PYTHON"
    return
  fi
  # each is run, not only looked up: the name may be a pyenv shim that points nowhere
  for candidate in $(printf 'python%s ' $versions) python3 python; do
    version="$(python_version "$candidate")"
    if fits "$version"; then base="$candidate"; return; fi
  done
  fail "no Python of version ${versions// /, } was found. Install one (Debian or Ubuntu: 'apt install python3.11 python3.11-venv python3.11-dev'; elsewhere 'conda create -n py311 python=3.11'), or name it: HGKD_PYTHON=/path/to/python."
}

# run_step WHAT HOW_LONG COMMAND...: output goes to a log; a sign of life every minute. Leaves in
# fetched the seconds until pip had looked up and downloaded torch and all that it installs with it.
run_step() {
  local what="$1" log="$venv/setup.log" started=$SECONDS next=60 status=0 pid
  fetched=''
  say "- $what ($2)"
  shift 2
  # a process group of its own: an interrupt has to end the compilers too
  set -m
  "$@" >"$log" 2>&1 </dev/null &
  pid=$!
  set +m
  trap 'kill -- "-$pid" 2>/dev/null; exit 130' INT TERM HUP
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.2
    if [[ -z "$fetched" ]] && grep -q '^Installing collected packages:.*torch' "$log"; then fetched=$(( SECONDS - started )); fi
    if (( SECONDS - started >= next )); then say "    $(( next / 60 )) min ..."; next=$(( next + 60 )); fi
  done
  wait "$pid" || status=$?
  trap - INT TERM HUP
  if (( status != 0 )); then
    grep -vE 'is ignored: it is neither|^ *$' "$log" | tail -n 15 >&2 || true
    fail "'$what' failed: $("$python" tools/install_help.py diagnose "$log") The whole log is $log."
  fi
  say "    done in $(( SECONDS - started )) s"
}

# write_times DOWNLOAD INSTALL MMCV: seconds, into the file that tools/quickstart.sh asks for
write_times() {
  printf '{"download_s": %d, "install_s": %d, "mmcv_s": %d, "total_s": %d}\n' "$1" "$2" "$3" $(( $1 + $2 + $3 )) >"${HGKD_SETUP_TIMES:-/dev/null}"
}

compile_mmcv() {
  local missing cores memory_gb
  missing="$("$python" tools/install_help.py can-compile)" || fail "$missing"
  replace_mmcv "$pure_mmcv"
  cores="$(getconf _NPROCESSORS_ONLN)"
  memory_gb="$(awk '/MemAvailable/ { print int($2 / 1e6) }' /proc/meminfo 2>/dev/null || true)"
  # a compiler process takes up to 1 GB; mmcv's own default starts at least four
  if (( ${memory_gb:-$cores} < cores )); then cores=$(( memory_gb > 0 ? memory_gb : 1 )); fi
  export MMCV_WITH_OPS=1 MAX_JOBS="${MAX_JOBS:-$cores}"
  if [[ "${FORCE_CUDA:-0}" != 1 ]] && ! "$python" tools/install_help.py cuda-compiler; then
    say "  There is a GPU but no nvcc for torch's CUDA: mmcv's ops are compiled for the CPU only; Mask R-CNN on a GPU needs them there."
    export CUDA_VISIBLE_DEVICES=-1
  fi
  run_step "mmcv, compiled by $MAX_JOBS processes" "8 to 12 minutes on 2 cores; seconds if pip's cache has it" \
    pip install --no-build-isolation --no-deps --force-reinstall "$@" "$mmcv"
}

# mmcv and mmcv-lite own the same files: the one that is left out goes first
replace_mmcv() {
  if [[ "$mmcv" != "$pure_mmcv" && -n "$(version_of "${1%%==*}")" ]]; then
    run_step "removing ${1%%==*}: the other mmcv takes its place" "2 s" pip uninstall -y "${1%%==*}"
  fi
}

install_ops() {
  if [[ $rebuild == yes ]]; then
    compile_mmcv --no-cache-dir
  elif [[ "$(version_of "${mmcv%%==*}")" != "${mmcv##*==}" ]] || ! has_ops; then
    compile_mmcv
  fi
  if ! "$python" -c 'import mmcv.ops' >/dev/null 2>&1 && "$python" -c 'import cv2, mmengine, torchvision' >/dev/null 2>&1; then
    say "  The mmcv at hand has no ops that load: pip's cache had one that is pure Python, or compiled for another torch."
    # out of the cache with it, which takes the good one in its place
    pip cache remove "$(tr - _ <<<"${mmcv%%==*}")" >/dev/null 2>&1 || true
    compile_mmcv
  fi
}

# Two cores are used: one pip unpacks torch while another builds what is pure Python.
install_libraries() {
  local builder status=0
  build_wheels &
  builder=$!
  pip install "${compile[@]}" -r requirements/common.txt $wheels || status=$?
  wait "$builder" || status=$?
  return "$status"
}

build_wheels() {
  pip wheel --no-deps --wheel-dir "$built" $mm_packages
  if [[ $pure == yes ]]; then
    # In pip's isolated build there is no torch, and without torch OneDL's mmcv builds without ops.
    # Such a wheel stays out of pip's cache, which would offer it where ops are wanted.
    pip wheel --no-deps --no-cache-dir --wheel-dir "$built" "$pure_mmcv"
  fi
}

make_venv() {
  say "The first time: 3 to 4 minutes (about 3 GB of downloads), 6 GB on disk."
  "$base" -c 'import ensurepip, venv' 2>/dev/null || fail "$base cannot make virtual environments; install its venv module (Debian or Ubuntu: 'apt install python$version-venv')."
  mkdir -p "$(dirname "$venv")" || fail "$(dirname "$venv") cannot be made; name another place with HGKD_VENV."
  local free_mb
  free_mb="$(df -Pm "$(dirname "$venv")" | awk 'NR == 2 { print $4 }')"
  (( free_mb > 8000 )) || fail "$free_mb MB are free on the disk of $venv and about 8000 are needed; free some, or put the environment elsewhere with HGKD_VENV."
  say "- virtual environment (5 s)"
  "$base" -m venv "$venv" || fail "'$base -m venv $venv' failed; the message is above."
}

# Packages that own files of this stack
remove_strangers() {
  local name owners strangers=()
  for name in $others opencv-python; do
    if [[ -n "$(version_of "$name")" ]]; then strangers+=("$name"); fi
  done
  if (( ${#strangers[@]} > 0 )); then
    # what shares files with a stranger loses them with it: it goes too, and comes back below
    owners="opencv-python-headless $(cut -d= -f1 <<<"$mm_packages")"
    if [[ "${strangers[*]}" == *mmcv* ]]; then owners+=" ${mmcv%%==*}"; fi
    run_step "removing ${strangers[*]}: not of this stack" "10 s" pip uninstall -y "${strangers[@]}" $owners
  fi
  # a stack's mmcv in both its forms: whichever went in last owns the files, and neither is whole
  if [[ "$mmcv" != "$pure_mmcv" && -n "$(version_of "${mmcv%%==*}")" && -n "$(version_of "${pure_mmcv%%==*}")" ]]; then
    run_step "removing ${mmcv%%==*} and ${pure_mmcv%%==*}: they own the same files" "5 s" \
      pip uninstall -y "${mmcv%%==*}" "${pure_mmcv%%==*}"
  fi
}

install_packages() {
  local pip_version
  # pip would compile all of torch; Python compiles what is imported when it is, unless told not to
  compile=(--no-compile)
  if [[ -n "${PYTHONDONTWRITEBYTECODE:-}" ]]; then compile=(--compile); fi
  pip_version="$(version_of pip)"
  # before two of them run: it would be replaced under the other's feet
  if (( ${pip_version%%.*} + 0 < 23 )); then run_step "a newer pip" "5 s" pip install 'pip>=23'; fi
  pure=no
  if [[ $ops == no && "$(version_of "${pure_mmcv%%==*}")" != "${pure_mmcv##*==}" ]]; then pure=yes; fi
  built="$venv/built"
  rm -rf "$built"
  run_step "torch, torchvision, libraries, test tools" "2 to 4 minutes the first time" install_libraries
  download_s="${fetched:-0}"
  if [[ $pure == yes ]]; then replace_mmcv "$mmcv"; fi
  run_step "mmengine, mmcv, mmpretrain, mmdet, mmseg, and hgkd_mm itself" "10 s" \
    pip install "${compile[@]}" --no-build-isolation --no-deps "$built"/*.whl -e .
  rm -rf "$built"
}

# -- is there anything to do? ---------------------------------------------------------------------
if [[ -x "$python" ]]; then
  version="$(python_version "$python")"
  fits "$version" || fail "$venv holds a Python that is ${version:-broken}; this stack runs on ${versions// /, }. Remove it ('rm -rf $venv') and run this again, or name another place with HGKD_VENV."
elif [[ -e "$venv" ]]; then
  fail "$venv exists and is not a virtual environment; remove it, or name another place with HGKD_VENV."
else
  find_python
fi
stamp="$(cat "$requirements" requirements/common.txt | cksum | tr ' ' -)-py$version-$root"
download_s=0
if [[ $rebuild == no && "$(cat "$venv/hgkd_setup" 2>/dev/null)" == "$stamp" ]] &&
    "$python" tools/install_help.py tested "$requirements"; then
  if [[ $ops == no ]] || has_ops; then
    write_times 0 0 0
    say "Environment: $venv is up to date ('$python tools/doctor.py' checks it in full)."
    exit 0
  fi
  say "Environment: $venv is up to date, but for mmcv's ops."
else
  say "Setting up $venv (Python $version, $requirements)."
  [[ -x "$python" ]] || make_venv
  rm -f "$venv/hgkd_setup"
  # ops that are there are kept, through a change of mmcv's version too
  if [[ $ops == no ]] && has_ops; then ops=yes; fi
  remove_strangers
  install_packages
fi

mmcv_started=$SECONDS
if [[ $ops == yes ]]; then
  install_ops
  has_ops || fail "the mmcv that was installed has no ops; the log is $venv/setup.log."
fi
mmcv_s=$(( SECONDS - mmcv_started ))
say "- check: tools/doctor.py (15 s)"
"$python" tools/doctor.py || fail "the check found the problems above."
write_times "$download_s" $(( SECONDS - download_s - mmcv_s )) "$mmcv_s"
printf '%s' "$stamp" >"$venv/hgkd_setup"
say "Environment ready: $python"
