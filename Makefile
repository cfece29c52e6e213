# A thin front for make.py, which holds the logic so that `python make.py TARGET` does the same where there is no make.
PYTHON ?= python3
TARGETS := help env book test lint chapter new reproduce lab epub bench stress full mutants register confirm drift real bases cache stamp clean

# Whatever stands on the command line is passed on, for make.py to refuse what it does not know. Nothing else is: some
# systems have a NAME of their own in the environment.
given = $(foreach v,$(filter-out PYTHON,$(.VARIABLES)),$(if $(filter command,$(origin $(v))),$(v)))
quoted = '$(subst ','\'',$(1))'

.PHONY: $(TARGETS)
.DEFAULT_GOAL := help

$(TARGETS):
	@$(PYTHON) make.py $@ $(foreach v,$(given),$(call quoted,$(v)=$(value $(v))))
