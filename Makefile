# What people run: make run, make test. The rest is for those who change Micro.
SHELL := /bin/bash
GO    ?= go

# The race detector needs a C compiler; without one the tests run all the same, and say so.
CC_FOUND := $(shell command -v "$$($(GO) env CC)" 2>/dev/null)
RACE     := $(if $(CC_FOUND),-race)

.PHONY: help build run test bench lint docs clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

build: ## build bin/micro and bin/greeter
	@mkdir -p bin
	$(GO) build -o bin/ ./cmd/micro ./examples/greeter

run: build ## start the greeter, call it, publish to it, until Ctrl-C
	@examples/run.sh

test: ## run all tests, with the race detector
	@$(if $(RACE),,echo "NO RACE DETECTOR: it needs a C compiler ($$($(GO) env CC)), and none was found. Install gcc to have it.")
	$(GO) test $(RACE) -timeout 20m ./...
	@$(if $(RACE),echo "what the race detector would falsify:")
	$(if $(RACE),$(GO) test -run 'TestAllocations|TestMemoryIsFlat' ./client)

bench: ## measure against bare TCP and gRPC, some minutes
	cd bench && $(GO) run .

lint: ## gofmt, go vet, staticcheck
	@test -z "$$(gofmt -l .)" || { echo "not formatted:"; gofmt -l .; exit 1; }
	$(GO) mod tidy -diff
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	cd bench && $(GO) vet ./...

docs: ## generate docs/plugins from what the plugins register
	$(GO) run ./cmd/micro docs docs/plugins

clean: ## remove what was built
	rm -rf bin
