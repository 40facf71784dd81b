# Margay's commands. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash

export PATH := $(PATH):/usr/sbin:/sbin:$(HOME)/.cargo/bin
CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR
MARGAY_CACHE ?= $(HOME)/.cache/margay
export MARGAY_CACHE
export MARGAY_KUBECTL_OLD ?= $(MARGAY_CACHE)/kubectl-debian/usr/bin/kubectl
BIN := $(CARGO_TARGET_DIR)/debug

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: root needs-demo build ## Bring up a routed, policed pod network on this machine and prove it
	@$(BIN)/margay-demo run

.PHONY: demo-down
demo-down: root build ## Take the demo away and compare the host with how it was before
	@$(BIN)/margay-demo down

.PHONY: test
test: needs-test build ## Run all tests
	@scripts/test

.PHONY: test-kube
test-kube: kube needs-test build ## Run all tests on real Kubernetes
	@NEXTEST_PROFILE=kube scripts/test -p margay-kubelab -p margay-apiserver

.PHONY: kube-e2e
kube-e2e: kube needs-test build ## Run Kubernetes' own specs for NetworkPolicy, Services and DNS
	@NEXTEST_PROFILE=kube scripts/test -p margay-kubelab -E 'test(specs::)'

.PHONY: bench-kube
bench-kube: kube needs-test build ## Measure pods' starts, the agent's cost and what faults cost, on real Kubernetes
	@NEXTEST_PROFILE=bench scripts/test -p margay-kubelab

.PHONY: lint
lint: needs-build ## Formatting, clippy, documentation and the shape of the house
	@scripts/lint

.PHONY: build
build: needs-build ## Build every program
	@[ -x $(BIN)/margay-demo ] || echo "build: everything, for the first time; some minutes on two cores"
	@cargo build --locked --workspace --bins $$([ ! -x $(BIN)/margay-demo ] || echo --quiet)

.PHONY: kube
kube: root needs-kube ## Fetch and build the pieces of a real Kubernetes cluster for the testbed, once
	@scripts/kube build

.PHONY: plugin
plugin: needs-build ## Build the CNI plugin for a release: one static file
	@cargo rustc --locked --release --quiet -p margay-cni --bin margay-cni -- -C target-feature=+crt-static
	@ls -l $(CARGO_TARGET_DIR)/release/margay-cni

PROFILE ?= release

.PHONY: image
image: root needs-image ## Build the container image, without Docker (PROFILE=debug: sooner, for tests)
	@scripts/image $(PROFILE)

FUZZ_SECONDS ?= 600

.PHONY: fuzz
fuzz: needs-build ## Fuzz a BGP session with libFuzzer for FUZZ_SECONDS (600)
	@command -v cargo-fuzz >/dev/null || { echo "fuzz: installing cargo-fuzz, which drives libFuzzer"; cargo install --locked --quiet cargo-fuzz; }
	@mkdir -p $(CARGO_TARGET_DIR)/fuzz-corpus
	@cd bgp/fuzz && RUSTC_BOOTSTRAP=1 cargo fuzz run session $(CARGO_TARGET_DIR)/fuzz-corpus corpus/bytes -- -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1

.PHONY: crds
crds: ## Write deploy/crds from the types in api/
	@cargo run --locked --quiet -p margay-api --features kube --bin margay-crds

.PHONY: manifests
manifests: ## Write deploy/margay.yaml and deploy/uninstall.yaml from the chart
	@scripts/manifests >deploy/margay.yaml.new && mv deploy/margay.yaml.new deploy/margay.yaml
	@scripts/manifests uninstall >deploy/uninstall.yaml.new && mv deploy/uninstall.yaml.new deploy/uninstall.yaml

.PHONY: root
root:
	@[ "$$(id -u)" = 0 ] || { echo "margay: this makes network namespaces, firewall rules or file systems, which needs root; run it as root" >&2; exit 1; }

.PHONY: needs-build needs-demo needs-test needs-image needs-kube
needs-build needs-demo needs-test needs-image needs-kube: needs-%:
	@scripts/needs $*
