# Two commands matter: `make run` shows a command's output from inside a real
# microVM, `make test` runs every test. Both set up all they need.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
# Steps stand on one another, whatever MAKEFLAGS says.
.NOTPARALLEL:

TARGET := x86_64-unknown-linux-musl
BIN := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/$(TARGET)/release
PYRO := $(BIN)/pyro
CARGO := cargo
# A part of a story's name; all of them if empty.
STORY :=
TELL_ON_FIRECRACKER = PYRO_BIN="$(PYRO)" $(CARGO) run --quiet --package pyro-lab --locked -- $(STORY)

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "%-18s %s\n", $$1, $$2 }'

.PHONY: run
run: setup build ## Set everything up and run a command in a real microVM
	@"$(PYRO)" env build debian:12
	echo '==> pyro run debian:12 -- git --version' >&2
	"$(PYRO)" run debian:12 -- git --version

.PHONY: test
test: setup-test build kernel environments ## Set everything up and run every test
	@$(CARGO) test --doc --workspace --locked
	PYRO_BIN="$(PYRO)" $(CARGO) nextest run --workspace --locked
	$(TELL_ON_FIRECRACKER)

.PHONY: smoke-firecracker
smoke-firecracker: setup-test build kernel environments ## Tell the stories on Firecracker in an emulated host; one with STORY=name
	@$(TELL_ON_FIRECRACKER)

.PHONY: build
build: ## Build pyro, with pyro-agent inside
	@echo '==> building pyro-agent, then pyro with it inside' >&2
	build() { $(CARGO) build --release --locked --package pyro --package pyro-agent "$$@"; }
	# Always both packages: dependencies then have the same features.
	build --lib --bin pyro-agent
	PYRO_EMBED_AGENT="$(BIN)/pyro-agent" build

.PHONY: kernel
kernel: setup-kernel build ## Build the tuned kernel, which boots about twice as fast
	@"$(PYRO)" env build debian:12 --kernel tuned

.PHONY: environments
environments: setup build ## Build every environment
	@for name in debian:12-base debian:12 debian:12-build; do "$(PYRO)" env build $$name; done

# Where packages go.
DIST := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/dist

.PHONY: deb wheel
deb: build ## Make the Debian package, in target/dist
	@packaging/deb.sh "$(PYRO)" "$(DIST)"
wheel: build ## Make the Python wheel, in target/dist
	@packaging/wheel.py "$(PYRO)" "$(DIST)"

.PHONY: pictures
pictures: build environments ## Draw what pyro prints, for the documents
	@packaging/pictures.py "$(PYRO)" docs/pictures

.PHONY: smoke-use-cases
smoke-use-cases: setup-test build kernel environments ## Tell the five use cases, on QEMU and on Firecracker
	@PYRO_BIN="$(PYRO)" $(CARGO) nextest run --package pyro-smoke --locked --test use_cases
	PYRO_BIN="$(PYRO)" $(CARGO) run --quiet --package pyro-lab --locked -- use_cases

.PHONY: bench
bench: setup build kernel environments ## Measure speed as ratios; writes docs/performance.md
	@PYRO_BIN="$(PYRO)" $(CARGO) bench --package pyro-smoke --locked

# How long, and with which numbers (any if empty).
MINUTES := 60
.PHONY: torture
torture: setup build environments ## Random operations under faults, checked against a model; writes docs/reliability.md
	@PYRO_BIN="$(PYRO)" $(CARGO) run --quiet --release --package pyro-torture --locked -- --minutes $(MINUTES) --report

.PHONY: lint
lint: ## Check formatting, lints and documentation
	@$(CARGO) fmt --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --locked
	if command -v cargo-deny >/dev/null; then $(CARGO) deny check; else echo '==> cargo-deny is not installed: `cargo install cargo-deny --locked`' >&2; fi

.PHONY: setup setup-test setup-kernel
setup: ## Install the system packages and the Rust target
	@images/setup.sh
setup-test:
	@images/setup.sh test kernel
setup-kernel:
	@images/setup.sh kernel

.PHONY: clean
clean: ## Remove what was built here; caches in the home directory stay
	@$(CARGO) clean
