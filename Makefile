# Everything starts here: `make html`, `make test`. Plain `make` lists the targets.
# Paths are relative on purpose: the book also builds from a folder whose name holds spaces.

PYTHON     ?= python3
SPHINXOPTS ?=
PYTESTOPTS ?=
PAGES      ?=
EDITION    ?=
BASE       ?= origin/main

RUN   := .venv/bin/python
SRC   := src/tvm_deepdive_helpers
# One edition if EDITION names it; `make html` builds all, the other commands the English one.
EDITIONS := $(or $(EDITION),en zh_CN)
ONE := $(or $(EDITION),en)
translated = $(if $(filter-out en,$1),-D language=$1)
sphinx_args = -c . -b html -d _build/doctrees/$1 -n $(call translated,$1) $(SPHINXOPTS) book _build/html/$1

# The tools use the cores themselves, and two builds must not share book/gallery/ at the same time.
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help html pdf epub archive test practice live links lint page changes accept symbols messages translated notebooks drift bench clean env

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

html: export SPHINXOPTS := $(SPHINXOPTS)
html: env ## Build the book, all languages, into _build/html/ (one: EDITION=en; more options: SPHINXOPTS="...")
	@$(RUN) -m tvm_deepdive_helpers.maintain.html $(EDITIONS)
	@$(if $(EDITION),,cp book/_data/start.html _build/html/index.html)
	@echo "The book is in _build/html/$(if $(EDITION),$(EDITION)/)index.html"

pdf: env ## Make the PDF of the book, _build/pdf/tvm-deep-dive-en.pdf (EDITION=zh_CN: the Chinese one); needs LaTeX, and says which packages
	@$(RUN) -m tvm_deepdive_helpers.maintain.pdf --edition $(ONE)

epub: env ## Make the EPUB of the book, _build/epub/tvm-deep-dive-en.epub; epubcheck reads it, when it is there
	@$(RUN) -m tvm_deepdive_helpers.maintain.epub --edition $(ONE)

archive: env ## Pack the built book, all languages, to be read without a network, into _build/archive/ (one: EDITION=en)
	@$(RUN) -m tvm_deepdive_helpers.maintain.archive --edition "$(EDITION)"

test: env ## Run the tests (more options: PYTESTOPTS="...")
	@$(RUN) -m pytest $(PYTESTOPTS)

practice: env ## Check your solution of a practice project: make practice PROJECT=custom_operator SOLUTION=my_op.py
	@test -n "$(PROJECT)" -a -n "$(SOLUTION)" || { echo "make practice: name a project and your file: make practice PROJECT=custom_operator SOLUTION=my_op.py" >&2; exit 2; }
	@$(RUN) -m tvm_deepdive_helpers.practice "$(PROJECT)" "$(SOLUTION)"

live: env ## Serve the book on this machine, and rebuild it at every save
	@$(RUN) -m sphinx_autobuild $(call sphinx_args,$(ONE)) --port 0 --watch gallery --watch src --watch conf.py \
	  --ignore book/gallery --ignore _build --re-ignore '/__pycache__/' --re-ignore '\.mo$$' \
	  --re-ignore '/\.[^/]*$$' --re-ignore '~$$' --re-ignore '/4913$$'

links: env ## Ask every address that the book names; needs the web, and stands in no other target
	@$(RUN) -m sphinx -q -c . -b linkcheck -d _build/doctrees/links book _build/links

lint: env ## Check style, spelling and the rules of the book; changes nothing
	@status=0; \
	$(RUN) -m ruff check --quiet --output-format concise src tests gallery conf.py || status=1; \
	$(RUN) -m ruff format --check --quiet --output-format concise src tests gallery conf.py || status=1; \
	$(RUN) -m codespell_lib || status=1; \
	$(RUN) -m tvm_deepdive_helpers.maintain.lint || status=1; \
	exit $$status

page: env ## Begin a page: make page PAGE=2-tir/loops (more options: OPTIONS="--title ... --rows ...")
	@test -n "$(PAGE)" || { echo "make page: say which page: make page PAGE=2-tir/loops" >&2; exit 2; }
	@$(RUN) -m tvm_deepdive_helpers.maintain.new_page "$(PAGE)" $(OPTIONS)

changes: env ## List what your change does to pages and outputs, against BASE (origin/main)
	@$(RUN) -m tvm_deepdive_helpers.maintain.changes "$(BASE)"

accept: env ## Take the outputs of the last build as the new snapshots in tests/
	@$(RUN) -m tvm_deepdive_helpers.maintain.snapshots accept

symbols: env ## Renew the index of cited compiler C++: make symbols TVM=path/to/checkout
	@test -n "$(TVM)" || { echo "make symbols: say where TVM's checkout is: make symbols TVM=path/to/tvm" >&2; exit 2; }
	@$(RUN) -m tvm_deepdive_helpers.maintain.symbols "$(TVM)"

messages: env ## Renew the catalogs of translations; begin a page's with make messages PAGES=2-tir/overview
	@$(RUN) -m tvm_deepdive_helpers.maintain.messages update $(PAGES)

notebooks: env ## Run the notebook of every script in a fresh kernel; goes on where it stopped: make notebooks PAGES=2-tir/tir_overview
	@$(RUN) -m tvm_deepdive_helpers.maintain.notebooks $(PAGES)

translated: env ## Check that finished translations are complete, as a release demands
	@$(RUN) -m tvm_deepdive_helpers.maintain.messages check --release

drift: env ## Run every cell on every supported release of TVM (more options: OPTIONS="--release 0.26.0 -j 4")
	@$(RUN) -m tvm_deepdive_helpers.maintain.drift run $(OPTIONS)
	@$(RUN) -m tvm_deepdive_helpers.maintain.drift write

bench: env ## Measure how long builds take, beside myst-nb and sphinx-gallery (more options: OPTIONS="--rounds 2")
	@$(RUN) -m tvm_deepdive_helpers.maintain.build_bench $(OPTIONS)

clean: ## Remove what was built: _build/ and book/gallery/ (.venv stays)
	@rm -rf _build book/gallery

env:
	@command -v "$(PYTHON)" >/dev/null || { echo "There is no '$(PYTHON)' on this machine. Install Python 3.11 or newer, or name one: make PYTHON=path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -I $(SRC)/maintain/bootstrap.py
