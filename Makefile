# The environment is .venv in the clone; every target sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
VERL := .venv-verl
VERL_STAMP := $(VERL)/.installed
VLLM := .venv-vllm
VLLM_STAMP := $(VLLM)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The tests start hundreds of processes; images that set this would have each of them compile our files again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo test nightly test-verl test-fsdp test-vllm check format sweep-paper bench chaos clean

help:  ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP)  ## Make .venv with the pinned dependencies

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch==2.13.0
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	-$(BIN)/python -m siri.engines.local.compiled.cache
	touch $(STAMP)

demo: install  ## Three cycles of SIRI and the constant-budget baseline on this machine, a table and a report
	$(BIN)/siri train laptop
	$(BIN)/siri train laptop-constant
	$(BIN)/siri compare laptop laptop-constant

# One more than the two cores that this is meant for: those that start servers, which come first, mostly wait.
test: install  ## All tests, three at a time
	$(BIN)/pytest -q -n 3

nightly: install chaos test-vllm test-fsdp  ## What takes hours: chaos, every crash point, every damaged file under every command, methods, vLLM, FSDP
	$(BIN)/python -m tests.crash_points
	$(BIN)/python -m tests.damage_matrix
	$(BIN)/python -m tests.methods_train

$(VERL_STAMP): constraints-verl.txt
	$(PYTHON) -m venv $(VERL)
	$(VERL)/bin/pip install -q -c constraints-verl.txt torch==2.13.0
	$(VERL)/bin/pip install -q -r constraints-verl.txt
	touch $(VERL_STAMP)

test-verl: $(VERL_STAMP)  ## The verl engine for real, on the CPU, in an environment of its own (2 GB, about ten minutes)
	PYTHONPATH=. $(VERL)/bin/pytest -q -W default tests/engines/test_verl_launch.py tests/verl tests/problems/test_templates.py::test_a_dated_template_is_refused_before_anything_is_trained

test-fsdp: $(VERL_STAMP)  ## verl's FSDP in two processes against one, and five methods against the local engine, on the CPU
	SIRI_NIGHTLY=1 PYTHONPATH=. $(VERL)/bin/pytest -q -W default tests/verl/test_two_processes.py tests/verl/test_method_steps.py

# Without what its packages ask for beyond the list: torchvision, torchaudio and torchcodec need CUDA's torch.
$(VLLM_STAMP): constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install -q -c constraints-vllm.txt torch==2.13.0
	$(VLLM)/bin/pip install -q --no-deps -r constraints-vllm.txt
	touch $(VLLM_STAMP)

test-vllm: $(VLLM_STAMP)  ## vLLM's CPU build as verl's rollout and as the sampler of evaluations, in an environment of its own (4.3 GB)
	PYTHONPATH=. $(VLLM)/bin/pytest -q -W default tests/verl/test_vllm.py tests/verl/test_vllm_server.py

check: install  ## Format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install  ## Let ruff format and fix what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

sweep-paper: install  ## The paper's arms on five seeds, two processes: 35 minutes; repeat it after a crash and it resumes
	$(BIN)/siri sweep paper --workers 2

bench: install  ## The benchmarks that need nothing beyond .venv; see benchmarks/README.md for the others
	$(BIN)/python -m benchmarks.local_engine

chaos: install  ## Twenty random kills during one run; it must come out as if nothing had happened (half an hour)
	$(BIN)/python -m tests.chaos --kills 20 --seed $${SEED:-1}

clean:  ## Remove caches; runs in .siri stay
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
