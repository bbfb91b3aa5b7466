#!/usr/bin/env bash
# Build the wheel, install it alone (no torch, no PEFT) under each supported Python that is here, and run the examples
# of README.md with it; under the oldest also with the oldest release of each package that pyproject.toml allows.
# usage: check_wheel.sh [VERSION...]      By default those of 3.10 - 3.13 that are here.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# find VERSION   the interpreter of that minor version: on the PATH, or among those of pyenv
find_python() {
  for python in "python$1" python3 "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
    if [ "$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$1" ]; then
      echo "$python"
      return
    fi
  done
  echo "Python $1 is not here" >&2
  return 1
}

if [ $# -eq 0 ]; then
  for version in 3.10 3.11 3.12 3.13; do
    if find_python "$version" >/dev/null; then set -- "$@" "$version"; fi
  done
fi
[ $# -gt 0 ]

scripts/build_dist.sh "$work/dist"
sed -n '/^dependencies/,/^]/s/^ *"\([a-z]*\).*>=\([0-9.]*\).*/\1==\2/p' pyproject.toml >"$work/bounds"

# check NAME VERSION [PIP OPTION...]   in an environment of that name
check() {
  "$(find_python "$2")" -m venv "$work/$1"
  bin=$work/$1/bin
  "$bin/pip" install -q "${@:3}" "$work"/dist/*.whl
  "$bin/python" - <<'PYTHON'
import importlib.util as u
assert not any(map(u.find_spec, ("torch", "peft", "transformers"))), "it is not alone"
PYTHON
  (cd "$work" && "$bin/python" "$OLDPWD/scripts/run_readme.py")
}

for version in "$@"; do
  check "$version" "$version"
  if [ "$version" = 3.10 ]; then check oldest "$version" --constraint "$work/bounds"; fi
done
