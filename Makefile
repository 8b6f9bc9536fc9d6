# Two commands on a fresh machine with Python 3.11 to 3.13, git and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BENCH := $(VENV)/bin/madgnet-bench
export NO_ALBUMENTATIONS_UPDATE := 1

.PHONY: install demo test gate lint clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "madgnet-bench needs Python 3.11 to 3.13; run make PYTHON=/path/to/python")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet --editable '.[dev]'
	touch $@

# Train a small U-Net and a small MADGNet on phantoms, two seeds each, and compare them on seen and unseen domains.
demo: install
	@for network in unet madgnet; do for seed in 0 1; do \
		$(BENCH) fit --config configs/demo/$$network.yaml --seed_everything $$seed || exit 1; \
	done; done
	@$(BENCH) leaderboard runs/demo

# All tests, on two processes of one thread each.
test: install
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses 2 --dist loadfile --quiet

# Train the smoke suite and compare it with the committed baseline.
gate: install
	OMP_NUM_THREADS=1 $(BENCH) run benchmarks/smoke.yaml --slots 2
	$(BENCH) compare results/regression runs/smoke --markdown runs/gate.md

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) runs
