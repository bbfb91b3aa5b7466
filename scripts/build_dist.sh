#!/usr/bin/env bash
# Build the sdist and the wheel twice, in two places under two umasks, and leave them in OUT where both are the same
# byte for byte. usage: build_dist.sh OUT
set -eu
out=$(realpath -m "$1")
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'build>=1.2'
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH

# build UMASK FOLDER   what git has of this folder, as it is here, built in a copy of it
build() (
  umask "$1"
  mkdir -p "$work/$2"
  git ls-files -z | tar --create --null --files-from=- | tar --extract --touch --directory "$work/$2"
  "$work/venv/bin/python" -m build --outdir "$work/$2/dist" "$work/$2" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
)
build 022 first
build 077 second/and/deeper
diff --recursive "$work/first/dist" "$work/second/and/deeper/dist"
mkdir -p "$out"
cp "$work/first/dist"/* "$out"
