# Needs python3.11 (or PYTHON=...), pip and make; .venv is set up by the first target that wants it.
PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

COURSE := outputs/course
LIGHTGCN := outputs/lightgcn

# Which tests `make test` runs; .ci/run asks for all that need no GPU.
MARKERS ?= not slow and not gpu and not parity
# How many tests run at a time.
WORKERS ?= 2

# Benchmarks that ask for files or for several processes; what they say at their head tells how.
BY_HAND := ddp_step hidden_concepts net_speed

.PHONY: train course lightgcn test lint bench everything clean

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
	$(RUN) -m pytest -q -n $(WORKERS) -m "$(MARKERS)"

lint: $(VENV)/everything.stamp  ## style and types
	$(RUN) -m ruff check .
	$(RUN) -m mypy

bench: $(VENV)/test.stamp  ## each benchmark prints one line of JSON
	set -e; for script in $(filter-out $(BY_HAND:%=benchmarks/%.py),$(wildcard benchmarks/*.py)); do $(RUN) $$script; done
	$(RUN) -m torch.distributed.run --standalone --nproc-per-node=2 benchmarks/ddp_step.py

everything: $(VENV)/everything.stamp  ## set up .venv with every tool that a developer needs, the genuine Lightning among them

clean:
	rm -rf $(VENV) outputs

$(RUN):
	$(PYTHON) -m venv $(VENV)

$(VENV)/dkt.stamp: pyproject.toml constraints.txt | $(RUN)
	$(PIP) --editable '.[dkt]'
	touch $@

$(VENV)/test.stamp: $(VENV)/dkt.stamp
	$(PIP) --editable '.[dkt,test]'
	touch $@

$(VENV)/everything.stamp: $(VENV)/test.stamp
	$(PIP) --editable '.[everything]'
	touch $@
