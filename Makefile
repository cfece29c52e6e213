# A thin front for make.py, which holds the logic so that `python make.py TARGET` does the same where there is no make.
PYTHON ?= python3
TARGETS := help env book test lint chapter reproduce lab epub bench stress full mutants drift real cache stamp clean

# Only what stands on the command line is passed on: some systems have a NAME of their own in the environment.
.PHONY: $(TARGETS)
.DEFAULT_GOAL := help

$(TARGETS):
	@$(PYTHON) make.py $@ $(foreach v,NAME PROFILE SEED SETTING OUT TORCH REPO WHICH PRUNE,$(if $(filter command,$(origin $(v))),'$(v)=$($(v))'))
