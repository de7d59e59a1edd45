# make demo    set up, build, convert images, train for a minute or two on the CPU, end with pictures
# make test    everything CI runs
# make check   format, widths and lints, in under a minute
# make help    all targets
SHELL := /bin/sh
CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
BIN := $(TARGET)/release
NIGHTLY := $(CARGO) +nightly
HOST := x86_64-unknown-linux-gnu
MSRV := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  make %-14s %s\n", $$1, $$2}'

# --- set-up and build ---------------------------------------------------------------------------------------------

.PHONY: setup
setup: ## libtorch into .torch/ (FULL=1: with CUDA; TORCH=DIR: use an existing PyTorch 2.11)
	@command -v $(CARGO) >/dev/null || { \
		echo "setup: a Rust toolchain ($(MSRV) or newer) is needed: https://rustup.rs" >&2; exit 2; }
	@command -v $${CXX:-c++} >/dev/null || { \
		echo "setup: a C++ compiler is needed (Debian: apt-get install g++)" >&2; exit 2; }
	@shardtool/nasm.sh $(TARGET)
	@trainer/libtorch.sh $(if $(TORCH),use "$(TORCH)",$(if $(FULL),full,cpu))

.PHONY: build
build: setup ## the three programs, optimised, into target/release/
	$(CARGO) build --release --workspace --bins $(if $(CUDA),--features trainer/cuda) \
		$(if $(COMPARE),--features trainer/compare)

# The programs find libtorch where it was when they were built: keep .torch/, or build with TORCH=DIR.
PREFIX ?= /usr/local
.PHONY: install
install: build ## the three programs into PREFIX/bin (PREFIX=/usr/local)
	install -d "$(PREFIX)/bin"
	install $(BIN)/shardtool $(BIN)/loader $(BIN)/trainer "$(PREFIX)/bin"

# --- the demo -----------------------------------------------------------------------------------------------------

# IMAGES=path/to/imagefolder trains on your own pictures instead of generated ones.
DEMO := demo
IMAGES ?= $(DEMO)/images
SHARDS := $(DEMO)/shards

.PHONY: demo
demo: build ## a minute or two of I-JEPA on the CPU, ending with a loss curve and pictures (IMAGES=DIR: your own)
	@mkdir -p $(DEMO)
	@rm -rf $(DEMO)/run $(SHARDS)
	@test "$(IMAGES)" != "$(DEMO)/images" || $(BIN)/shardtool synth $(DEMO)/images --images 2000 --val 200
	$(BIN)/shardtool build "$(IMAGES)" --out $(SHARDS) || test $$? -eq 1
	$(BIN)/loader show --config configs/demo.yaml --shards $(SHARDS) --step 0 --out $(DEMO)/crops.png
	$(BIN)/trainer launch --config configs/demo.yaml --shards $(SHARDS) --devices cpu --set logging.folder=$(DEMO)/run
	$(BIN)/trainer plot $(DEMO)/run --out $(DEMO)/loss.png
	@cp $(DEMO)/crops.png $(DEMO)/run/crops.png
	$(BIN)/trainer report $(DEMO)/run --out $(DEMO)/report.html
	@echo
	@echo "Done. Loss curve: $(DEMO)/loss.png   crops and masks: $(DEMO)/crops.png"
	@echo "      all of it on one page: $(DEMO)/report.html"
	@echo "      log and checkpoints: $(DEMO)/run/   shards: $(SHARDS)/"

# --- benchmarks: dated records, no tests ----------------------------------------------------------------------------

.PHONY: bench
bench: ## the codecs and libjpeg-turbo on the same crops, on one core (IMAGES=DIR: a folder of JPEG files)
	@test -d "$(IMAGES)" || { \
		echo "bench: IMAGES=DIR names a folder of JPEG files, ImageNet's for figures like README's" >&2; exit 2; }
	$(CARGO) build --release -p loader --features compare
	$(BIN)/loader compare --images "$(IMAGES)"

# IMAGES=DIR: class folders of JPEGs. ARGS="--rounds 5 --only ffcv-jpeg,ours-jpeg": see loader/benches/rivals.py --help.
.PHONY: bench-rivals
bench-rivals: ## this loader beside torchvision, DALI, FFCV and others (IMAGES=DIR: class folders of JPEGs)
	$(CARGO) build --release -p shardtool -p loader --bins
	python3 loader/benches/rivals.py $(if $(filter-out file,$(origin IMAGES)),--images "$(IMAGES)") $(ARGS)

# IMAGES=DIR: class folders in train/ and val/. ARGS="--steps 1500 --seeds 1": see trainer/benches/learn.py --help.
.PHONY: learn
learn: build ## pretraining that learns, beside what does not, as a table: an hour of two cores (IMAGES=DIR)
	@test "$(IMAGES)" != "$(DEMO)/images" || $(BIN)/shardtool synth $(DEMO)/images --images 2000 --val 200
	python3 trainer/benches/learn.py --images "$(IMAGES)" $(ARGS)

# DATA=DIR in the environment feeds one of the benches from real shards; IJEPA=PATH, a checkout of
# facebookresearch/ijepa, has the official code measured beside ours.
.PHONY: gpu
gpu: ## on a GPU machine: smoke test, check-reference and benches, recorded under trainer/benches/records/
	$(MAKE) build CUDA=1 $(if $(IJEPA),COMPARE=1) $(if $(TORCH),,FULL=1)
	trainer/benches/gpu.sh

# IJEPA=PATH: a checkout of facebookresearch/ijepa. ARGS="--quick --models tiny": see trainer/benches/official.py
# --help.
.PHONY: bench-official
bench-official: ## the training step beside the official code's, on the CPU (IJEPA=PATH: a checkout of it)
	@test -d "$(IJEPA)" || { echo "bench-official: IJEPA=PATH names a checkout of facebookresearch/ijepa" >&2; exit 2; }
	$(CARGO) build --release -p trainer --bins --features compare
	python3 trainer/benches/official.py --ijepa "$(IJEPA)" $(ARGS)

# --- tests: each stage is a command that can be pasted; CI runs the same ones ---------------------------------------

STAGES := setup fmt width deny clippy msrv doc python unit sources probes events cuda loom miri asan fuzz-build
.PHONY: test
test: $(STAGES) ## everything CI runs
	@echo "All stages passed."

.PHONY: check
check: fmt width ## what is worth running before every commit: format, widths, lints of the libraries
	$(CARGO) clippy --workspace --lib --bins -- -D warnings

.PHONY: fmt
fmt: ## formatting
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check

# rustfmt leaves comments and strings as they are.
.PHONY: width
width: ## no line of code or prose is longer than 120 characters
	python3 tests/tools/width.py

.PHONY: clippy
clippy: ## lints, warnings are errors
	$(CARGO) clippy --workspace --all-targets --features loader/compare,trainer/compare -- -D warnings
	$(CARGO) clippy -p trainer --all-targets --features cuda -- -D warnings

# clippy's incompatible_msrv looks for newer library functions wherever it runs; the old compiler looks for the rest.
.PHONY: msrv
msrv: ## the oldest Rust that Cargo.toml promises: no dependency asks for more; a build, where it is installed
	python3 tests/tools/msrv.py
	@if rustup toolchain list 2>/dev/null | grep -q '^$(MSRV)'; then \
		$(CARGO) +$(MSRV) check --workspace --all-targets --target-dir $(TARGET)/msrv; \
	else echo "SKIPPED msrv: no toolchain $(MSRV) (rustup toolchain install $(MSRV))"; fi

# Built once into target/tools/, unoptimised: it runs for seconds.
DENY := $(or $(shell command -v cargo-deny),$(TARGET)/tools/bin/cargo-deny)
.PHONY: deny
deny: ## licences, sources and bans of all dependencies
	@test -x "$(DENY)" || $(CARGO) install cargo-deny --locked --debug --no-default-features --root $(TARGET)/tools \
		--target-dir $(TARGET)/tools/build
	@rm -rf $(TARGET)/tools/build
	"$(DENY)" --locked --log-level error check bans licenses sources
	"$(DENY)" --manifest-path fuzz/Cargo.toml --locked --log-level error check bans licenses sources

.PHONY: doc
doc: ## rustdoc of public and private items, warnings are errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --lib
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc --workspace --no-deps --lib \
		--document-private-items

.PHONY: python
python: ## the packages of the Python shard reader, into target/python/
	@test -d $(TARGET)/python/zstandard -a -d $(TARGET)/python/xxhash || { rm -rf $(TARGET)/python && \
	python3 -m pip install -q --disable-pip-version-check --root-user-action=ignore --target $(TARGET)/python \
	zstandard xxhash; }

# With the features of the tests: other ones would be another build of libtorch's shim and all that uses it.
BUILD_TESTED := $(CARGO) build --workspace --bins --features trainer/compare
# The multi-process tests spawn the programs, so those are built first.
.PHONY: unit
unit: ## unit, property, golden and multi-process tests
	@test -d "$${IJEPA_SHARED:-../shared}/reference" || echo "SKIPPED inside the tests: comparisons with recordings of the \
	official code \
	that are not shipped (no $${IJEPA_SHARED:-../shared}/reference; IJEPA_SHARED=DIR names another place)"
	$(BUILD_TESTED)
	$(CARGO) test --workspace --features trainer/compare

# The venv with the formats' own libraries is made by pip in target/sources/. IMAGES=DIR: train/CLASS/ and val/CLASS/.
.PHONY: sources
sources: ## every kind of source, written by its format's own library, every image's bytes compared (IMAGES=DIR: of yours)
	$(CARGO) build -p shardtool --bins
	@mkdir -p $(TARGET)/sources
	python3 tests/tools/sources.py $(TARGET)/sources $(TARGET)/debug/shardtool \
		$(if $(filter-out file,$(origin IMAGES)),--images "$(IMAGES)")

# The venv with scikit-learn is made by pip in target/probes/.
.PHONY: probes
probes: setup ## `trainer eval` beside scikit-learn on the same features
	$(BUILD_TESTED)
	@mkdir -p $(TARGET)/probes
	python3 tests/tools/probes.py $(TARGET)/probes $(TARGET)/debug

# The venv with tensorboard is made by pip in target/events/.
.PHONY: events
events: setup ## a run's event files, read by TensorBoard's own package
	$(BUILD_TESTED)
	@mkdir -p $(TARGET)/events
	python3 tests/tools/events.py $(TARGET)/events $(TARGET)/debug

# A build that takes GPUs, on a machine that may have none: what needs none works, and the rest says what is missing.
.PHONY: cuda
cuda: ## the feature `cuda`: its tests that need no GPU, and a clean failure without one
	$(CARGO) test -p trainer --features cuda --lib --test devices -- cuda device smoke source an_absent_gpu

# The venv with transformers is made by pip in target/interop/. IJEPA=PATH: a checkout of facebookresearch/ijepa.
.PHONY: interop
interop: setup ## import, export, bench against PyTorch, transformers and the official code (IJEPA=PATH) themselves
	@python3 tests/tools/interop_env.py $(TARGET)/interop >$(TARGET)/interop.env
	env $$(cat $(TARGET)/interop.env) $(if $(IJEPA),INTEROP_IJEPA="$(abspath $(IJEPA))") \
	$(CARGO) test -p trainer --features compare --test interop --test bench_official -- --nocapture

# Every interleaving of the ring's protocol that the C11 memory model allows, at capacity 2.
.PHONY: loom
loom: ## the ring under the loom model checker
	RUSTFLAGS="--cfg loom" $(CARGO) test -p loader --lib --release --no-default-features --target-dir $(TARGET)/loom ring

.PHONY: miri
miri: ## the ring under miri, where a nightly with miri is installed
	@if $(NIGHTLY) miri --version >/dev/null 2>&1; then \
		MIRIFLAGS="-Zmiri-disable-isolation" $(NIGHTLY) miri test -p loader --lib --no-default-features \
		--target-dir $(TARGET)/miri ring; \
	else echo "SKIPPED miri: no nightly toolchain with miri (rustup component add miri --toolchain nightly)"; fi

# The C code of libjpeg-turbo, zstd and shardtool is instrumented as well.
.PHONY: asan
asan: ## codecs, shard reader, ring and pipeline under AddressSanitizer, where a nightly is installed
	@if $(NIGHTLY) --version >/dev/null 2>&1; then \
		RUSTFLAGS="-Zsanitizer=address" CFLAGS="-g1 -fsanitize=address" \
		$(NIGHTLY) test -p shardtool -p loader --lib --target $(HOST) --target-dir $(TARGET)/asan; \
	else echo "SKIPPED asan: no nightly toolchain (rustup toolchain install nightly)"; fi

.PHONY: fuzz-build
fuzz-build: ## the fuzz targets: lints, and a build where a nightly is installed
	$(CARGO) clippy --manifest-path fuzz/Cargo.toml --target-dir $(TARGET)/fuzz/clippy --features seeds -- -D warnings
	@if $(NIGHTLY) --version >/dev/null 2>&1; then CARGO="$(CARGO)" fuzz/run.sh build; \
	else echo "SKIPPED fuzz-build: no nightly toolchain (rustup toolchain install nightly)"; fi

# No part of the tests: it takes as long as one lets it. TARGETS="dct rans" runs just these.
SECONDS := 60
.PHONY: fuzz
fuzz: ## every reader of foreign bytes under libFuzzer and AddressSanitizer, each for SECONDS=60 (needs a nightly)
	@CARGO="$(CARGO)" fuzz/run.sh $(SECONDS) $(TARGETS)

.PHONY: fuzz-seeds
fuzz-seeds: ## the seeds of the fuzz targets, from fixtures and golden files
	$(CARGO) run --release --manifest-path fuzz/Cargo.toml --target-dir $(TARGET)/fuzz/seeds --features seeds --bin seeds

# Short forms are in the tests. Each ends with what it did and saw, for a record under tests/records/.
.PHONY: torture soak
SEED := 1
ROUNDS := 500
torture: ## random kills, signals, failing disks and hostile peers, to equal losses (SEED=1 ROUNDS=500)
	$(CARGO) build --workspace --bins
	SEED=$(SEED) ROUNDS=$(ROUNDS) $(CARGO) test -p tests --test torture -- --nocapture --test-threads 1

MINUTES := 60
soak: ## a long run, whose memory and descriptors must not grow (MINUTES=60)
	$(CARGO) build --workspace --bins
	MINUTES=$(MINUTES) $(CARGO) test -p tests --test soak -- --nocapture

.PHONY: clean
clean: ## what was built and made, but not libtorch
	$(CARGO) clean
	rm -rf $(DEMO)
