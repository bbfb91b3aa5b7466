#!/usr/bin/env bash
# What a release consists of, in OUT: sdist and wheel, sbom.json (CycloneDX: the packages that `pip install` of the wheel
# brings), notes.md (what CHANGELOG.md says of it). Fails where one of those packages has a known weakness.
# usage: release.sh vVERSION OUT
set -eu
version=${1#v}
mkdir -p "$2"
out=$(realpath "$2")
cd "$(dirname "$0")/.."
[ "$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' ckpt_doctor/__init__.py)" = "$version" ] || {
  echo "release.sh: $1 is not the version of ckpt_doctor/__init__.py" >&2
  exit 1
}
sed -n "/^## $version\$/,/^## /{/^## /d;p}" CHANGELOG.md >"$out/notes.md"
grep -q . "$out/notes.md" || {
  echo "release.sh: CHANGELOG.md says nothing of $version" >&2
  exit 1
}
scripts/build_dist.sh "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/tools"
"$work/tools/bin/pip" install -q cyclonedx-bom==7.5.0 pip-audit==2.10.1
python3 -m venv --without-pip "$work/bare"
"$work/tools/bin/pip" --python "$work/bare/bin/python" install -q --find-links "$out" "ckpt-doctor==$version"
"$work/tools/bin/cyclonedx-py" environment --output-reproducible --of JSON -o "$out/sbom.json" "$work/bare/bin/python"
"$work/tools/bin/pip-audit" --path "$("$work/bare/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
