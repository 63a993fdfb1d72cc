# Each line is a command that you could type. PYTHON chooses the interpreter (3.11 or newer).

PYTHON ?= python3
BIN := .venv/bin

STUDY ?= .
# A word for the shell, whatever is in it.
quoted = '$(subst ','\'',$(1))'

.PHONY: demo watch test lint test-slurm bench resume bundle compare clean-demo

# The whole study in small, on a CPU: environment, study, verdicts, where to look.
demo: .venv/installed
	$(BIN)/python workflow/scripts/run_study.py demo --cores all

# How far a study is, live: make watch STUDY=demo
watch: .venv/installed
	$(BIN)/python workflow/scripts/watch.py $(call quoted,$(STUDY))

test: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYTHONPATH=workflow/scripts $(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/snakemake --lint --directory .test

test-slurm: .venv/installed-dev
	$(BIN)/python -m pytest tests/slurm -m slurm

# Resumes a study that was interrupted, once its jobs have ended: make resume STUDY=demo PROFILE=workstation
PROFILE ?= slurm
resume: .venv/installed
	$(BIN)/python workflow/scripts/resume.py --directory $(call quoted,$(STUDY)) --profile $(call quoted,$(PROFILE))

# One archive of a finished study, from which others rebuild its tables, figures and report: make bundle STUDY=demo TEXTS=1
bundle: .venv/installed
	$(BIN)/python workflow/scripts/bundle.py $(call quoted,$(STUDY)) $(if $(TEXTS),--texts)

# Two studies side by side: make compare STUDIES="demo mine"; a name with a space in quotes of its own
STUDIES ?= . demo
compare: .venv/installed
	$(BIN)/python workflow/scripts/compare.py $(STUDIES)

bench: .venv/installed
	$(BIN)/python benchmarks/throughput.py

# Removes what the demo made; its next run starts anew.
clean-demo:
	rm -rf demo/results demo/figures demo/paper_tables demo/logs demo/.snakemake demo/report.html demo/publish demo/bundle.tar.gz demo/tracking

.venv/installed: requirements.txt requirements-analysis.txt envs/make_environment.sh
	PYTHON="$(PYTHON)" sh envs/make_environment.sh requirements.txt
	@touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	PYTHON="$(PYTHON)" sh envs/make_environment.sh requirements-dev.txt
	@touch $@
