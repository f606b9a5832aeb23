# Needs Python (3.10 or newer), pip and make; .venv is set up by the first target that wants it.
# A launcher's shim can be on PATH and fail, so each candidate is run. PYTHON=... names another one.
USABLE := -c "import sys, ensurepip; sys.exit(sys.version_info < (3, 10))"
CANDIDATES := python3 python3.11 python3.12 python3.13 python3.10$(if $(filter Windows_NT,$(OS)), python)
PYTHON ?= $(or $(shell for p in $(CANDIDATES); do if $$p $(USABLE) >/dev/null 2>&1 </dev/null; then echo $$p; break; fi; done),\
  $(error None of $(CANDIDATES) runs and is Python 3.10 or newer, with venv and pip. Install one, or name yours: make PYTHON=/its/path))
VENV := .venv
RUN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts/python.exe,bin/python)
CONSTRAINTS := constraints.txt
INSTALL = $(RUN) .ci/install.py $(CONSTRAINTS:%=--constraint %) --editable

COURSE := outputs/course
LIGHTGCN := outputs/lightgcn

# Which tests `make test` runs; .ci/run asks for all that need no GPU and are not for the night.
MARKERS ?= not slow and not gpu and not parity and not nightly
TESTS ?= tests
FLAGS ?=
# How many tests run at a time.
WORKERS ?= 2

# Benchmarks that ask for files or for several processes; what they say at their head tells how.
BY_HAND := ddp_step hidden_concepts net_speed

.PHONY: train course lightgcn test lowest nightly packages lint bench everything clean

train: $(VENV)/dkt.stamp  ## train a knowledge-tracing model on a simulated school and score it
	$(RUN) -m dkt train

course: $(VENV)/dkt.stamp  ## the course's program: simulated data in, outputs/submission.csv out
	$(RUN) -m dkt simulate $(COURSE)/data --students 7442
	$(RUN) examples/course/dkt_lightning.py --data_dir $(COURSE)/data --asset_dir $(COURSE)/asset --model_dir $(COURSE)/models \
	  --output_dir outputs --lr 0.001 --n_epochs 10

lightgcn: $(VENV)/dkt.stamp  ## the course's LightGCN beside the one that propagates: both AUCs, outputs/lightgcn/submission.csv
	$(RUN) -m dkt simulate $(LIGHTGCN)/data
	$(RUN) examples/course/lightgcn.py --data_dir $(LIGHTGCN)/data --model_dir $(LIGHTGCN)/models --output_dir $(LIGHTGCN)

test: $(VENV)/test.stamp  ## the tests; MARKERS="not gpu" adds the slow ones, and after `make everything` those against Lightning
	$(RUN) -m pytest -q -rs -n $(WORKERS) -m "$(MARKERS)" $(FLAGS) $(TESTS)

# Old packages use what the newer ones below them have deprecated.
lowest: build/lowest.txt  ## the tests on the lowest version of every dependency but torch, those of the extras with them
	$(MAKE) everything test VENV=.venv-lowest CONSTRAINTS="constraints.txt build/lowest.txt" \
	  MARKERS="not gpu and not parity and not nightly and (needs or not slow)" FLAGS="-W ignore::DeprecationWarning"

nightly: $(VENV)/everything.stamp  ## what .ci/run has no time for: tests of the night, and the slow ones without any extra
	$(RUN) -m pytest -q -rs -n $(WORKERS) -m "nightly and not gpu" || [ $$? -eq 5 ]  # 5: there are none
	$(MAKE) test VENV=.venv-newcomer MARKERS="slow and not gpu and not parity and not nightly"

packages: $(VENV)/everything.stamp  ## build what would be uploaded, and import it from there
	rm -rf build/packages
	$(RUN) -m pip --quiet wheel --no-deps --wheel-dir build/packages .
	$(RUN) -m pip --quiet install --no-deps --target build/packages/installed build/packages/*.whl
	PYTHONPATH=build/packages/installed $(RUN) -c "import dkt, fulgurite; assert 'installed' in dkt.__file__ and 'installed' in fulgurite.__file__"
	PYTHONPATH=build/packages/installed $(RUN) -m dkt --help >/dev/null

lint: $(VENV)/everything.stamp  ## style and types
	$(RUN) -m ruff check .
	$(RUN) -m mypy

bench: $(VENV)/test.stamp  ## each benchmark prints one line of JSON
	set -e; for script in $(filter-out $(BY_HAND:%=benchmarks/%.py),$(wildcard benchmarks/*.py)); do $(RUN) $$script; done
	$(RUN) -m torch.distributed.run --standalone --nproc-per-node=2 benchmarks/ddp_step.py

everything: $(VENV)/everything.stamp  ## set up .venv with every tool that a developer needs, the genuine Lightning among them

clean:
	rm -rf .venv .venv-lowest .venv-newcomer build outputs

build/lowest.txt: pyproject.toml constraints.txt $(VENV)/everything.stamp
	mkdir -p build
	$(RUN) -m uv --quiet pip compile --resolution lowest-direct $(CONSTRAINTS:%=--constraint %) --extra everything pyproject.toml --output-file $@

$(RUN):
	@$(PYTHON) $(USABLE) || { echo "$(PYTHON) is not Python 3.10 or newer with venv and pip." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/dkt.stamp: pyproject.toml constraints.txt | $(RUN)
	@echo "Setting up $(VENV), once: torch and what dkt needs. Minutes, most of them for torch."
	$(INSTALL) '.[dkt]'
	touch $@

$(VENV)/test.stamp: $(VENV)/dkt.stamp
	@echo "Setting up $(VENV), once: what the tests need. About a minute."
	$(INSTALL) '.[dkt,test]'
	touch $@

$(VENV)/everything.stamp: $(VENV)/test.stamp
	@echo "Setting up $(VENV), once: every extra, and the genuine Lightning. Minutes."
	$(INSTALL) '.[everything]'
	touch $@
