# Lifeboat's commands. `make` alone prints them. Every target first installs
# what this machine lacks (scripts/setup.sh); there is nothing to prepare.
SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS   += --no-print-directory

export CGO_ENABLED := 0
export GOFLAGS     := -buildvcs=false

GO       := scripts/go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LINTER   := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
FUZZTIME ?= 10s
RUN      ?= .
COUNT    ?= 20
ROUNDS   ?= 4
POINTS   ?= 5000
ROWS     ?=

.PHONY: help
help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: setup-build ## bin/lifeboat, one static binary
	@$(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/lifeboat ./cmd/lifeboat

.PHONY: demo
demo: setup-demo build ## protect a machine, kill it, recover it; ends by itself
	@bin/lifeboat demo

.PHONY: test
test: setup-test ## all tests; quiet when green
	@$(call quietly,$(GO) vet ./...)
	@status=0; \
	$(call quietly,$(GO) test -timeout 10m ./cmd/... ./internal/...) || status=1; \
	$(call quietly,$(GO) test -count=1 -timeout 15m -p 1 ./test/...) || status=1; \
	exit $$status

.PHONY: race
race: setup-test ## the internal packages under the race detector (RUN=regexp to choose)
	@CGO_ENABLED=1 $(GO) test -race -timeout 30m -run '$(RUN)' ./internal/...

.PHONY: bench
bench: setup-bench build ## side by side with peers; writes bench/results.json (ROWS=nbd,boot to choose)
	@$(GO) run ./test/bench -lifeboat bin/lifeboat -out bench/results.json -rows '$(ROWS)'

.PHONY: bench-readme
bench-readme: setup-build ## write the table of bench/results.json into README.md
	@$(GO) run ./test/bench -readme README.md

.PHONY: lint
lint: setup-build ## golangci-lint, pinned, built by Go (slow the first time)
	@$(GO) run $(LINTER) run ./...

.PHONY: fuzz
fuzz: setup-build ## every fuzz test for FUZZTIME each (10s)
	@scripts/fuzz.sh $(FUZZTIME)

.PHONY: soak
soak: setup-test ## vaults, lines, trackers and guests again and again (COUNT=times, ROUNDS=of faults, POINTS=made in a vault; SEED=number for one of them again)
	@LIFEBOAT_TEST_POINTS=$(POINTS) LIFEBOAT_TEST_SEED=$(SEED) $(GO) test -timeout 12h -count $(COUNT) -run 'TestEveryKeptPoint' -v ./internal/vault
	@LIFEBOAT_TEST_POINTS=$(POINTS) LIFEBOAT_TEST_SEED=$(SEED) LIFEBOAT_TEST_S3_RUN=TestEveryKeptPoint $(GO) test -timeout 12h -run 'TestSuiteOnS3' -v ./internal/vault
	@LIFEBOAT_TEST_LONG=1 LIFEBOAT_TEST_S3_RUN='Fault' $(GO) test -timeout 12h -run 'TestSuiteOnS3' -v ./internal/vault
	@LIFEBOAT_TEST_LONG=1 $(GO) test -timeout 12h -run 'TestABadLine|TestADeadLine' -v ./test/e2e
	@ROUNDS=$(ROUNDS) $(GO) test -timeout 12h -count $(COUNT) $(if $(SEED),-run TestPointsAreMoments,./internal/source/...) ./test/stamp ./test/guest

.PHONY: generate
generate: setup-generate ## the kernel programs, after a change of their source
	@$(GO) generate ./internal/source/blocktrack/ebpf

.PHONY: clean
clean: ## remove what the targets built
	@rm -rf bin bench/*.tmp

.PHONY: setup-build setup-demo setup-test setup-bench setup-generate
setup-build setup-demo setup-test setup-bench setup-generate:
	@scripts/setup.sh $(@:setup-%=%)

# Packages without tests and modules on their way are no news; everything else go
# says is kept, and so is its exit status.
quietly = $(1) 2>&1 | { grep --line-buffered -vE 'no test files|^go: downloading ' || true; }
