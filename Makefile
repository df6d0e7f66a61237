# SPDX-License-Identifier: Apache-2.0
# Two commands matter: `make run` and `make test`. `make help` lists the others.

SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN   := bin/trunkboard
NPM   := npm --prefix web/app

# Tests are compiled with the flags of the binary (without cgo, without this machine's paths), so that nothing is compiled twice: a third of
# what a build with an empty cache takes. The race detector alone needs cgo.
export CGO_ENABLED := 0
export GOFLAGS := $(strip $(GOFLAGS) -trimpath)

# How long each fuzz target runs in `make fuzz`.
FUZZTIME ?= 20s
# What `make run` passes on, e.g. make run ARGS="--tls self-signed".
ARGS ?=

.PHONY: help
help: ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

## Build

WEB_SOURCES := $(shell find web/app -type f -not -path '*/node_modules/*' 2>/dev/null)

.PHONY: build run web tools
build: tools $(BIN) ## Build the web client and the binary, bin/trunkboard

# Where git will not say what the commit is (a copy without .git, a checkout of another user), the binary does without.
VCS := $(shell git status --porcelain >/dev/null 2>&1 || echo -buildvcs=false)

# Go knows itself what has changed; without cgo the binary is static and runs on any Linux of this architecture.
.PHONY: $(BIN)
$(BIN): web
	@go run ./cmd/licences . web/dist/licences.txt
	go build $(VCS) -o $(BIN) ./cmd/trunkboard

run: build ## Build everything and serve http://localhost:8008, data in ./data
	@exec $(BIN) serve $(ARGS)

web: web/dist/index.html ## Build the web client into web/dist, if its sources have changed

web/dist/index.html: web/app/node_modules/.package-lock.json $(WEB_SOURCES)
	$(NPM) run build
	@touch $@

web/app/node_modules/.package-lock.json: web/app/package.json web/app/package-lock.json
	$(NPM) ci --no-audit --no-fund
	@touch $@

tools:
	@command -v go >/dev/null || { echo "Go 1.26 or newer is needed: https://go.dev/dl/"; exit 1; }
	@node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || a == 20 && b >= 19 ? 0 : 1)' 2>/dev/null || \
		{ echo "Node 20.19 or newer is needed to build the web client: https://nodejs.org/"; exit 1; }

## Test

.PHONY: test check test-go test-web test-browser test-network test-race test-long interop deps
deps: tools ## Install what the tests need: Debian packages and npm packages
	@.ci/deps.sh

test: deps build ## Run every test: Go, web and browsers, with a PostgreSQL and a Redis of their own
	@.ci/services.sh $(MAKE) --no-print-directory check

# What `make test` runs once the databases are there.
check: lint-go test-go test-web test-browser test-network

test-go: sfu/e2e/node_modules/.package-lock.json ## Run the Go tests alone; what needs a PostgreSQL or a Redis is left out
	@loadtest/retry.sh -timeout 20m ./...

# Other people's clients, which the tests run unmodified: livekit-client, Element Call (AGPL-3.0, never part of the binary), Jitsi's SDK.
%/node_modules/.package-lock.json: %/package.json %/package-lock.json
	npm --prefix $* ci --no-audit --no-fund
	@touch $@

test-web: web/app/node_modules/.package-lock.json ## Run the web client's unit tests
	$(NPM) test

test-browser: build web/e2e/element-call/node_modules/.package-lock.json web/e2e/jitsi/node_modules/.package-lock.json ## Run the browser tests, and Element Call between two servers
	$(NPM) run test:e2e
	@TRUNKBOARD_TEST_ELEMENT_CALL=1 loadtest/retry.sh -count=1 -timeout 20m -run ElementCall ./loadtest/interop

test-network: build ## One call in each of six networks, and a meeting through port 443 alone; prints the selected pairs (root: it makes a network namespace)
	@for file in network meet-network; do \
		unshare -n -- sh -c "ip link set lo up && exec node --test --test-reporter=spec web/e2e/$$file.mjs" || exit 1; \
	done

test-race: deps sfu/e2e/node_modules/.package-lock.json ## Run the Go tests under the race detector (needs a C compiler)
	@.ci/services.sh env CGO_ENABLED=1 go test -race -timeout 40m ./...

test-long: deps build web/e2e/element-call/node_modules/.package-lock.json ## Run the long drills as well: kill -9, power cuts, soak
	@TRUNKBOARD_TEST_LONG=1 .ci/services.sh go test -timeout 120m -v -run 'Long|Drill' ./...

# Where `make interop` keeps other homeservers; outside the repository.
INTEROP ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/trunkboard/interop

interop: build web/e2e/element-call/node_modules/.package-lock.json ## Run rooms and calls with a real Synapse, fetched into INTEROP (root), and Dendrite if TRUNKBOARD_INTEROP_DENDRITE names a folder with it
	@loadtest/interop/fetch.sh $(INTEROP)
	TRUNKBOARD_INTEROP=$(INTEROP) go test -count=1 -timeout 40m -v ./loadtest/interop

## Measure and keep clean

.PHONY: bench fuzz lint lint-go generate
bench: ## Run the Go benchmarks
	@.ci/services.sh go test -run '^$$' -bench . -benchmem ./...

fuzz: ## Run every fuzz target for FUZZTIME
	@set -e; grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -r -n1 dirname | sort -u | while read -r dir; do \
		for target in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]*' $$dir/*_test.go | cut -d' ' -f2); do \
			echo "$$dir $$target"; go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$dir; \
		done; \
	done

lint-go:
	@unformatted=$$(gofmt -l $$(find . -name '*.go' -not -path '*/node_modules/*')); [ -z "$$unformatted" ] || { echo "gofmt would change: $$unformatted"; exit 1; }
	go vet ./...

lint: lint-go ## Check formatting, go vet, staticcheck, TypeScript
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
	$(NPM) run typecheck

generate: ## Write generated files anew
	go generate ./...
	go test ./cmd/trunkboard -run Reviewed -update
