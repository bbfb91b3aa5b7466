#!/usr/bin/env bash
# One thin environment per PEFT release in FOLDER, sharing one torch and three sets of companions.
# usage: make_peft_venvs.sh FOLDER RELEASE...          Python 3.10 - 3.12
set -eu
folder=$1; shift
for python in python3.11 python3.12 python3.10 python3; do
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
  case $version in 3.10|3.11|3.12) break ;; esac
done
case ${version:-} in 3.10|3.11|3.12) ;; *) echo "old PEFT releases need Python 3.10 - 3.12" >&2; exit 1 ;; esac
mkdir -p "$folder"; folder=$(cd "$folder" && pwd)
site() { echo "$folder/$1/lib/python$version/site-packages"; }

# make NAME 'SHARED...' PIP-ARGUMENTS...   an environment that also sees the packages of those in SHARED
make() {
  name=$1; shared=$2; shift 2
  [ -e "$folder/$name/.done" ] && return 0
  "$python" -m venv "$folder/$name"
  for other in $shared; do site "$other"; done > "$(site "$name")/shared.pth"
  "$folder/$name/bin/pip" install -q "$@"
  touch "$folder/$name/.done"
}

make torch "" torch==2.13.0 psutil pyyaml tqdm packaging
for release in "$@"; do
  case $release in
    0.[2-9].*) era=old; pins="numpy==1.26.4 transformers==4.38.2 accelerate==0.27.2 safetensors==0.4.5 huggingface_hub==0.23.5" ;;
    0.1[0-4].*) era=middle; pins="numpy==1.26.4 transformers==4.46.3 accelerate==1.1.1 safetensors==0.4.5 huggingface_hub==0.26.5" ;;
    *) era=new; pins="numpy==2.2.6 transformers==4.57.6 accelerate==1.12.0 safetensors==0.7.0 huggingface_hub==0.36.0" ;;
  esac
  # shellcheck disable=SC2086
  make $era torch $pins
  make "peft-$release" "$era torch" --no-deps "peft==$release"
done
