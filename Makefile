# `make demo`, `make test` and `make docs` each set up .venv and run; they need Python 3.11 or newer and nothing else.
# Options of pip go into PIP_FLAGS. The tests of the converter need torch, several GB with CUDA; the small CPU build:
#   make test PIP_FLAGS='--extra-index-url https://download.pytorch.org/whl/cpu'
# Packages come in the versions of requirements.lock; LOCK= takes the newest that the bounds of requirements.txt allow.

PYTHON ?= python3
PIP_FLAGS ?=
LOCK ?= --constraint requirements.lock
SLOW ?= slow
BIN := .venv/bin

.PHONY: demo test test-slow test-all docs lint types clean

demo: .venv/demo.stamp
	$(BIN)/python enhance.py examples/noisy --output runs/examples/enhanced
	$(BIN)/python -m jax_diffse score --clean examples/clean --noisy examples/noisy --output runs/examples/report \
	  --metrics pesq_wb,stoi,si_sdr package=runs/examples/enhanced
	@echo
	@echo 'Listen: runs/examples/report/index.html has the recordings before and after the enhancer in the package.'
	@echo 'It enhances your own recordings, files or folders, with:'
	@echo '  $(BIN)/jax-diffse enhance RECORDINGS -o enhanced'
	@echo
	@echo 'Next, a small network learns from synthetic speech, in minutes.'
	$(BIN)/python train.py --config demo --workdir runs/demo
	$(BIN)/python evaluate.py --workdir runs/demo --output runs/demo/report
	@echo
	@echo 'Enhance your own recordings with what was just trained:'
	@echo '  $(BIN)/jax-diffse enhance --workdir runs/demo --output enhanced RECORDINGS'
	@echo 'Train on your own folders of speech and noise:'
	@echo '  $(BIN)/jax-diffse train --config dccrn:folders,small,short --workdir runs/mine \'
	@echo '    --config.data.train.speech=SPEECH --config.data.train.noise=NOISE'

test: .venv/dev.stamp
	$(BIN)/python -m pytest -m 'not slow' --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-slow: .venv/dev.stamp  # drills, notebooks, README's commands, networks at full size
	$(BIN)/python -m pytest -m '$(SLOW)' --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-all: test test-slow

docs: .venv/docs.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo site/index.html

lint: .venv/dev.stamp
	$(BIN)/ruff check .

types: .venv/dev.stamp
	$(BIN)/mypy

clean:
	rm -rf .venv build site *.egg-info

.venv/python.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'error: $(PYTHON) is missing or older than Python 3.11; name another one: make PYTHON=python3.12' >&2; exit 2; }
	$(PYTHON) -m venv .venv
	touch $@

.venv/demo.stamp: .venv/python.stamp requirements.txt requirements.lock pyproject.toml
	$(BIN)/python -m pip install --quiet $(LOCK) $(PIP_FLAGS) --editable '.[demo]'
	touch $@

.venv/dev.stamp: .venv/python.stamp requirements.txt requirements.lock pyproject.toml
	$(BIN)/python -m pip install --quiet $(LOCK) $(PIP_FLAGS) --editable '.[demo,dev,docs]'
	touch $@

.venv/docs.stamp: .venv/python.stamp requirements.txt requirements.lock pyproject.toml
	$(BIN)/python -m pip install --quiet $(LOCK) $(PIP_FLAGS) --editable '.[docs]'
	touch $@
