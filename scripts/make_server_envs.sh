#!/usr/bin/env bash
# One environment per server in FOLDER, sharing one torch, in which its own LoRA code runs on a CPU.
# usage: make_server_envs.sh FOLDER SERVER==VERSION...     vllm, sglang, llama.cpp (versions of llama-cpp-python); Python 3.11 or 3.12
set -eu
folder=$1; shift
python=$(command -v python3.11 || command -v python3.12)
mkdir -p "$folder"; folder=$(cd "$folder" && pwd)
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')

# What a server asks for and a load of an adapter does not, for it has no GPU. scripts/lab/servers/stand_ins.py stands
# in for what is imported all the same.
without='torch|torchvision|torchaudio|torchcodec|xgrammar|tilelang|fastsafetensors|instanttensor|nvtx|kernels|timm|gguf|ray
cuda-.*|nvidia-cu.*|nvidia-mathdx|nvshmem.*|flash.*|.*-kernels?|quack.*|tokenspeed.*|sgl-.*|smg-.*|apache-tvm-ffi|PyNvVideoCodec|py-spy|decord2|av|tml-renderers|deepseek-recipe'

make() {  # NAME: an environment that also sees the shared torch
  "$python" -m venv "$folder/$1"
  echo "$folder/torch/lib/python$version/site-packages" > "$folder/$1/lib/python$version/site-packages/shared.pth"
}
pip() { "$folder/$1/bin/pip" install -q --disable-pip-version-check --no-warn-conflicts "${@:2}"; }

if [ ! -e "$folder/torch/.done" ]; then
  "$python" -m venv "$folder/torch"
  pip torch torch==2.13.0 numpy safetensors
  touch "$folder/torch/.done"
fi
for server in "$@"; do
  name=${server%%==*}-${server##*==}
  [ -e "$folder/$name/.done" ] && continue
  make "$name"
  case $server in
    vllm==*|sglang==*)
      pip "$name" --no-deps "$server"
      "$folder/$name/bin/python" - "${server%%==*}" "$without" > "$folder/$name/requirements.txt" <<'PY'
import re, sys
from importlib.metadata import requires
for line in requires(sys.argv[1]):
    name = re.match(r"[\w.-]+", line)[0]
    if "extra ==" not in line and not re.fullmatch("|".join(sys.argv[2].split()), name, re.I):
        print(line)
PY
      # triton comes with torch where that is for a GPU, and SGLang imports it
      pip "$name" -r "$folder/$name/requirements.txt" peft==0.21.2 triton ;;
    llama.cpp==*)
      pip "$name" cmake ninja transformers diskcache jinja2 sentencepiece protobuf
      "$folder/$name/bin/pip" download -q --disable-pip-version-check --no-deps --no-binary :all: -d "$folder/$name" "llama-cpp-python==${server##*==}"
      mkdir -p "$folder/$name/source"
      tar xzf "$folder/$name"/llama_cpp_python-*.tar.gz -C "$folder/$name/source" --strip-components 1
      PATH="$folder/$name/bin:$PATH" cmake -S "$folder/$name/source/vendor/llama.cpp" -B "$folder/$name/build" -G Ninja \
        -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS=-O1 -DCMAKE_CXX_FLAGS='-O1 -DNDEBUG' -DBUILD_SHARED_LIBS=ON -DGGML_NATIVE=OFF -DLLAMA_CURL=OFF \
        -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_COMMON=OFF > "$folder/$name/build.log"
      PATH="$folder/$name/bin:$PATH" ninja -C "$folder/$name/build" llama >> "$folder/$name/build.log" ;;
    *) echo "$server: vllm==, sglang== or llama.cpp==" >&2; exit 1 ;;
  esac
  touch "$folder/$name/.done"
done
