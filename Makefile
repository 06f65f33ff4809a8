# What people run: make run, make test. The rest is for those who change Micro.
SHELL := /bin/bash
GO    ?= go

# The race detector needs a C compiler; without one the tests run all the same, and say so.
CC_FOUND := $(shell command -v "$$($(GO) env CC)" 2>/dev/null)
RACE     := $(if $(CC_FOUND),-race)

# What was not tested because a real server is missing; a test that is skipped says nothing itself.
SKIPPED := if [ -s .servers/skipped ]; then sort -u .servers/skipped; echo "SKIPPED: $$(sort -u .servers/skipped | wc -l) tests had no real server"; fi

# What the conformance suites found, for docs/capabilities.md. It is one folder for all runs, so that go test can cache them.
RESULTS := $(CURDIR)/.results

.PHONY: help build run servers test bench lint docs capabilities clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

build: ## build bin/micro and bin/greeter
	@mkdir -p bin
	$(GO) build -o bin/ ./cmd/micro ./examples/greeter

run: build ## start greeter and gateway, call, publish, ask over HTTP, until Ctrl-C
	@examples/run.sh

servers: ## install the real servers that the tests need (Consul, Kafka, RabbitMQ) under .servers, once
	@internal/servers/install.sh

test: ## run all tests, with the race detector; those on real servers need "make servers" first
	@$(if $(RACE),,echo "NO RACE DETECTOR: it needs a C compiler ($$($(GO) env CC)), and none was found. Install gcc to have it.")
	@mkdir -p .servers $(RESULTS) && rm -f .servers/skipped
	@echo "go test $(RACE) ./..."
	@MICRO_SUITE_RESULTS=$(RESULTS) MICRO_SKIPPED_SERVERS=$(CURDIR)/.servers/skipped $(GO) test $(RACE) -timeout 20m ./... || { $(SKIPPED); exit 1; }
	@$(GO) run ./internal/capabilities -check $(RESULTS) docs/capabilities.md || { $(SKIPPED); exit 1; }
	@$(if $(RACE),echo "what the race detector would falsify:")
	$(if $(RACE),$(GO) test -run 'TestAllocations|TestMemoryIsFlat' ./client ./gateway/rpc ./gateway/httpd)
	@echo "beside AWS's SDK, in a module of its own:"
	cd tracer/xray/parity && $(GO) test $(RACE) -timeout 5m ./...
	@$(SKIPPED)

bench: ## measure against bare TCP and gRPC, some minutes
	cd bench && $(GO) run .

lint: ## gofmt, go vet, staticcheck
	@test -z "$$(gofmt -l .)" || { echo "not formatted:"; gofmt -l .; exit 1; }
	$(GO) mod tidy -diff
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	cd bench && $(GO) vet ./...
	cd tracer/xray/parity && $(GO) mod tidy -diff && $(GO) vet ./...

docs: ## generate docs/plugins from what the plugins register
	$(GO) run ./cmd/micro docs docs/plugins

capabilities: ## generate docs/capabilities.md from what the conformance suites find; needs "make servers"
	@rm -rf $(RESULTS) && mkdir $(RESULTS)
	MICRO_SUITE_RESULTS=$(RESULTS) $(GO) test -count=1 -timeout 20m -run Conformance ./registry/... ./broker/... ./transport/...
	$(GO) run ./internal/capabilities $(RESULTS) docs/capabilities.md

clean: ## remove what was built
	rm -rf bin $(RESULTS)
