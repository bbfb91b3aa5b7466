PYTHON ?= python3
BIN = .venv/bin
ADAPTERS ?= 1000
RELEASES ?= 0.6.2 0.8.2 0.9.0 0.13.2 0.21.2
SAVERS ?= 0.9.0 0.13.2 0.21.2
SERVERS ?= vllm==0.33.0 sglang==0.5.23 llama.cpp==0.3.36
SEED ?= 1
SECONDS ?= 600
COUNT ?= 100

PARALLEL = -n auto --dist loadfile
AXE = build/npm/node_modules/axe-core/axe.min.js

.PHONY: fuzz demo example front-door test page compat compat-all lab lab-many lab-servers lint bench wheel actions nightly
.DEFAULT_GOAL := test

.venv/.run: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -e .
	touch $@

.venv/.dev: .venv/.run
	$(BIN)/pip install -q torch==2.13.0
	$(BIN)/pip install -q -e '.[dev]'
	touch $@

demo: .venv/.run  ## scan a real AdaLoRA adapter with rank-0 layers, and repair it
	$(BIN)/ckpt-doctor scan --exit-zero fixtures/adalora-rank0-0.17.1
	rm -rf build/demo
	$(BIN)/ckpt-doctor fix fixtures/adalora-rank0-0.17.1 build/demo
	$(BIN)/ckpt-doctor compare fixtures/adalora-rank0-0.17.1 build/demo
	$(BIN)/ckpt-doctor scan build/demo

test: .venv/.dev lint
	$(BIN)/python -m pytest -q -m 'not compat' $(PARALLEL)

page: .venv/.dev $(AXE)  ## open the pages of --html in a headless Chromium, which is to be installed
	PAGE=required $(BIN)/python -m pytest -q -m page

$(AXE):
	npm install --silent --no-save --prefix build/npm axe-core@4.14.1

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/mypy

compat: .venv/.dev  ## prove each fixture, before and after, in real PEFT releases
	scripts/make_peft_venvs.sh .venvs $(RELEASES)
	PEFT_VENVS=.venvs $(BIN)/python -m pytest -q -m compat -n auto --dist loadgroup

fuzz: .venv/.dev  ## files of chance for every reader, for SECONDS
	$(BIN)/python scripts/fuzz.py $(SECONDS) --seed $(SEED)

lab: .venv/.dev  ## adapters of random draw, as saved and as people break them, in real PEFT releases: what is judged wrong
	scripts/make_peft_venvs.sh .venvs $(RELEASES) $(SAVERS)
	$(BIN)/python scripts/lab $(RELEASES) --savers $(SAVERS) --seed $(SEED) --count $(COUNT)

lab-many: .venv/.dev  ## COUNT adapters of random draw, of which no release is asked: what is read, compared and repaired of them
	$(BIN)/python scripts/lab/many.py $(COUNT) --seed $(SEED)

lab-servers: .venv/.dev  ## LoRAs of models that people serve, in real servers on a CPU: what is judged wrong
	scripts/make_server_envs.sh .servers $(SERVERS)
	$(BIN)/python scripts/lab/servers $(SERVERS) --seed $(SEED) --count $(COUNT)

example: .venv/.dev  ## AdaLoRA beside LoRA: trained, watched, repaired for PEFT 0.9.0, served
	scripts/make_peft_venvs.sh .venvs 0.9.0
	$(BIN)/python examples/adalora_beside_lora/run.py build/example .venvs/peft-0.9.0/bin/python

front-door: .venv/.dev  ## the LoRA resolver in examples/, asked as vLLM asks it, with vLLM's own code on a CPU
	scripts/make_server_envs.sh .servers vllm==0.33.0
	.servers/vllm-0.33.0/bin/pip install -q . ./examples/vllm_front_door
	.servers/vllm-0.33.0/bin/python examples/vllm_front_door/check.py fixtures

bench: .venv/.run  ## scans beside a click hello, a walk in C and a loop of json.loads
	$(BIN)/python scripts/bench --adapters $(ADAPTERS)

wheel:  ## the wheel, alone, under every Python that is here, and the examples of README.md
	scripts/check_wheel.sh

actions:  ## the hooks, the action and the workflows, as their own linters see them
	scripts/check_actions.sh

ALL = 0.2.0 0.3.0 0.4.0 0.5.0 0.6.2 0.7.1 0.8.2 0.9.0 0.10.0 0.11.1 0.12.0 0.13.2 0.14.0 0.15.2 0.16.0 0.17.1 0.18.1 0.19.1 0.20.0 0.21.2

compat-all:  ## the same in every minor series that there is
	$(MAKE) compat RELEASES='$(ALL)'

nightly: .venv/.dev  ## what takes hours: fixtures in every series, cases and the lab's adapters proved on skeletons, 100,000 random adapters, the benchmarks
	$(MAKE) compat-all
	$(BIN)/python scripts/prove_cases.py $(RELEASES)
	$(MAKE) lab
	$(MAKE) lab-many COUNT=100000
	$(BIN)/python scripts/check_prove.py build/seed-$(SEED) --releases $(RELEASES)
	$(BIN)/python scripts/check_together.py --seed $(SEED)
	$(MAKE) front-door
	$(MAKE) bench
