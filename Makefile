# What can be done here. `make help` lists it.
CACHE ?= $(or $(BOMBPROOF_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/bombproof)
PACKAGES := gcc libc6-dev make git flex bison bc libelf-dev libssl-dev kmod cpio rsync perl xz-utils python3 dpkg-dev \
            gcc-s390x-linux-gnu libc6-dev-s390x-cross quilt procps bubblewrap redis-server
ALL_ARCHES := gcc-aarch64-linux-gnu libc6-dev-arm64-cross gcc-powerpc64le-linux-gnu libc6-dev-ppc64el-cross
# Containers of builds: an engine where none is installed, and what makes images.
ENGINE := docker.io mmdebstrap
NEXTEST := $(shell command -v cargo-nextest)

.PHONY: help build demo images up down down-clean test test-interop test-farm test-up test-long test-oracle bench bench-long lint fuzz install
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

build: ## the program, target/release/bombproof
	@scripts/need-rust
	cargo build --release --bin bombproof

install: build ## the program into ~/.cargo/bin
	cargo install --path cli --locked

demo: ## the main job on real input: a real series, a real kernel, two architectures
	@scripts/demo

images: ## the image whose compilers build in containers, bombproof-worker (first time: some minutes)
	@scripts/install-packages $(ENGINE)
	deploy/images/build

up: ## a farm on this host, in containers: a coordinator and WORKERS=2 workers (first time: some minutes)
	@deploy/farm up

down: ## stops it; everything is kept
	@deploy/farm down

down-clean: ## stops it and deletes what it kept
	@deploy/farm clean

test: ## every test that a laptop can run, one on a real kernel among them (first time: 140 MB to fetch)
	@scripts/need-rust
	@scripts/install-packages $(PACKAGES)
	@scripts/have-image
	@scripts/fetch-linux "$(CACHE)/linux"
	-@scripts/fetch-casd "$(CACHE)"
ifneq ($(NEXTEST),)
	BOMBPROOF_CASD="$$(scripts/fetch-casd "$(CACHE)")" BOMBPROOF_LINUX="$(CACHE)/linux" cargo nextest run --workspace --run-ignored all
else
	BOMBPROOF_CASD="$$(scripts/fetch-casd "$(CACHE)")" BOMBPROOF_LINUX="$(CACHE)/linux" cargo test --workspace -- --include-ignored
endif

test-interop: ## the blob plane against buildbox-casd, in both directions (first time: 36 MB to fetch)
	@scripts/need-rust
	@scripts/test-interop "$(CACHE)"

test-farm: ## a farm of real processes: equal reports, and what becomes of a series when they are killed
	@scripts/install-packages $(PACKAGES)
	cargo test -p bombproof --test farm --test redis --test faults --test hostile

test-up: ## a farm as `make up` starts it, on a real series: the report of a check on one machine, then down
	@scripts/test-up "$(CACHE)"

test-long: ## hours: long real series against plain git and make; can be stopped and goes on
	@scripts/install-packages $(PACKAGES) $(ALL_ARCHES)
	@scripts/fetch-linux "$(CACHE)/linux"
	@scripts/test-long "$(CACHE)"

test-oracle: ## hours: real and mutated series, four architectures, every object against plain make; goes on where it was
	@scripts/install-packages $(PACKAGES) $(ALL_ARCHES)
	@scripts/fetch-linux "$(CACHE)/linux"
	@scripts/test-oracle "$(CACHE)"

bench-long: ## an hour: whole series beside git rebase --exec make, with and without ccache
	@scripts/install-packages $(PACKAGES) $(ALL_ARCHES) ccache
	@scripts/fetch-linux "$(CACHE)/linux"
	cargo build --quiet --release --bin bombproof
	@scripts/bench-long "$(CACHE)/linux"

bench: ## speed, as ratios against the alternatives in the same run
	@scripts/install-packages $(PACKAGES)
	@scripts/fetch-linux "$(CACHE)/linux"
	@scripts/bench-intake "$(CACHE)/linux"
	@scripts/bench-check "$(CACHE)/linux"
	@scripts/bench-recall
	@scripts/bench-plan

lint: ## format, lints, walls between the rooms, licences
	@scripts/lint

fuzz: ## a minute for each parser of untrusted text
	@scripts/fuzz 60
