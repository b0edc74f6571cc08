# The two commands a newcomer needs are `make demo` and `make test`; each installs what it lacks. As root.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml hatch_build.py README.md $(shell find bpf src -name '.*' -prune -o -type f -not -name '*.pyc' -not -name '*.o' -print)

# Debian packages: what zerohop itself needs, and what only the tests use.
RUNTIME_PACKAGES := libbpf1 python3-venv iproute2
TEST_PACKAGES := $(RUNTIME_PACKAGES) bpftool curl haproxy nftables nghttp2-client nghttp2-server \
	nginx-light redis-server
KERNEL_PACKAGES := $(RUNTIME_PACKAGES) qemu-system-x86 busybox-static kmod nftables

TEST_EXTRAS := demo,dev

# Half of the time is waiting for the kernel to verify programs and for programs to start: two files at a time. In their
# order, so that the quick ones come last and neither has to wait for the other.
PYTEST_OPTIONS ?= -n 2 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo test test-kernels lint bench clean root

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

root:
	@[ "$$(id -u)" = 0 ] || { echo "needs root: run sudo make $(MAKECMDGOALS)" >&2; exit 1; }

# Installs the Debian packages named in $(1) that are missing; asks the network only if one is.
define install_packages
	@missing=; for package in $(1); do \
		[ "$$(dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null)" = installed ] || missing="$$missing $$package"; \
	done; \
	if [ -n "$$missing" ]; then \
		echo "installing$$missing"; \
		export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi
endef

# $(1): the extras. A real install, so that the build hook compiles the BPF object as it does for a user.
define install_zerohop
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@echo "installing zerohop into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check '.[$(1)]'
endef

$(VENV)/.demo: $(SOURCES)
	$(call install_zerohop,demo)
	@touch $@

$(VENV)/.test: $(SOURCES)
	$(call install_zerohop,$(TEST_EXTRAS))
	@touch $@ $(VENV)/.demo

demo: root ## two gRPC services with and without zerohop, live; under a minute
	$(call install_packages,$(RUNTIME_PACKAGES))
	@$(MAKE) --silent --no-print-directory $(VENV)/.demo
	@$(BIN)/zerohop demo

test: root ## every test that can run on this machine
	$(call install_packages,$(TEST_PACKAGES))
	@$(MAKE) --silent --no-print-directory $(VENV)/.test
	@$(BIN)/python -m pytest $(PYTEST_OPTIONS)

lint: root ## ruff and mypy
	$(call install_packages,$(RUNTIME_PACKAGES))
	@$(MAKE) --silent --no-print-directory $(VENV)/.test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: root ## every benchmark but policy, half an hour; BENCH="http2 --rounds 7" for a part
	$(call install_packages,$(TEST_PACKAGES))
	@$(MAKE) --silent --no-print-directory $(VENV)/.test
	@$(BIN)/zerohop bench $(or $(BENCH),pingecho http2 grpc bulk)

test-kernels: root ## boots other Debian kernels in emulation and tries the data path on each
	$(call install_packages,$(KERNEL_PACKAGES))
	@$(MAKE) --silent --no-print-directory $(VENV)/.test
	@$(BIN)/python tests/kernels/run.py

clean: ## removes the virtual environment and everything that was built
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f src/zerohop/kernel/objects/*.bpf.o
