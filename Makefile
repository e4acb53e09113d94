# Everything sets itself up: a virtual environment in .venv, and the system's headers where it may.
#
#   make demo        real speech through a real gateway, judged
#   make test        the test suite
#   make bench       the benchmarks
#   make bench-load  a hundred streams into a running gateway; BENCH_ARGS=--help shows the others
#   make bench-meeting  a hundred meetings recorded at once, and what a long one writes to disk
#   make bench-router a request through the router, beside plain Sanic and nginx in front of it
#   make router-replace a service that is replaced 200 times under load, and whether a request failed
#   make bench-dispatch messages that go through the dispatcher's queues in a second
#   make bench-store what the session store does in a second, beside the bare engines
#   make soak        half an hour of streams that come and go, to see that memory stays flat
#   make hostile     attackers against a running gateway, in full; on a quiet machine
#   make faults      every fault of a recognizer's service at 50 moments of talks, words counted
#   make chaos       ten minutes of random faults on a cluster under load, and whether a word was lost
#   make kills       twenty workers killed while people talk
#   make meeting-kills  twenty workers killed while meetings are recorded
#   make dispatch-kills  targets and workers killed while 10,000 finals are dispatched
#   make consumer-kills  twenty consumers killed while they empty a queue
#   make queue-kills  a Redis killed while 10,000 messages go through it
#   make dispatch-backlog  100,000 messages that wait as the gateway starts
#   make stutter     the tests beside stalls of their sockets and processes; PYTEST_ARGS names some of them
#   make fuzz        a million damaged inputs through the sanitized native decoders
#   make lint        format, lint and type checks
#   make lock        write requirements.lock, versions and hashes; LOCK_ARGS=--upgrade for newer ones
#   make audit       look for known vulnerabilities in requirements.lock, where they can be asked for
#   make docs        write docs/configuration.md from the settings, docs/endpoints.md from a gateway
#   make console-pictures  the console's views in docs/images
#   make html        the documents as a site in build/html
#   make wheel       a wheel in dist/ that brings its own libopus
#   make test-wheel  that wheel in a fresh environment, without the system's libopus
#   make release-check  what would be released, from a fresh build: contents, metadata, version, SBOM in dist/
#   make prove-image the steps of the Dockerfile, without a container engine
#   make clean       remove what was built and installed here

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
RUN := $(VENV)/bin
STAMPS := $(VENV)/stamps
NATIVE := $(wildcard _native/*.pyx _native/*.pxd)
SHIPPED := $(shell find edge _native dispatch router -name '*.py' -o -name '*.py[ix]' -o -name '*.pxd' -o -name '*.lua' -o -path 'edge/web/*.*')
PYTEST_ARGS ?=
# These take longest: first, so that nothing waits for the last of them.
LONG := tests/ingest tests/meeting tests/demo tests/asr
# These stop whole gateways or make networks, and mostly wait: three at a time.
FEW := tests/nodes/test_sockets.py tests/server tests/nodes
# These measure time: they want the machine for themselves.
ALONE := tests/hostile tests/nodes/test_latency.py tests/server/test_ready_time.py
SPREAD := --dist loadfile --no-loadscope-reorder
BENCH_MODE ?= --benchmark-only
BENCH_ARGS ?=
FUZZ_ARGS ?=
FAULTS_ARGS ?=
CHAOS_ARGS ?=
LOCK_ARGS ?=

.PHONY: help demo test bench bench-router router-replace bench-dispatch bench-load bench-meeting bench-store soak hostile faults chaos kills meeting-kills dispatch-kills dispatch-backlog consumer-kills queue-kills stutter fuzz lint lock audit docs html console-pictures wheel test-wheel release-check prove-image clean

help:
	@sed -n 's/^#   //p' Makefile

demo: $(STAMPS)/native
	@$(RUN)/edgescribe demo

test: $(STAMPS)/native $(STAMPS)/browser $(STAMPS)/nginx
	@if [[ -n "$(PYTEST_ARGS)" ]]; then
		$(RUN)/python -m pytest $(PYTEST_ARGS)
	else
		$(RUN)/python -m pytest -q -n 4 $(SPREAD) $(LONG) tests $(FEW:%=--ignore=%) $(ALONE:%=--ignore=%)
		$(RUN)/python -m pytest -q -n 3 $(SPREAD) $(FEW) $(ALONE:%=--ignore=%)
		$(RUN)/python -m pytest -q $(ALONE)
	fi

bench: $(STAMPS)/native $(STAMPS)/nginx
	@$(RUN)/python -m pytest bench $(BENCH_MODE) $(BENCH_ARGS)

bench-router: $(STAMPS)/native $(STAMPS)/nginx
	@$(RUN)/python -m pytest bench/test_bench_router.py --figures
	$(RUN)/python -m bench.router_neighbours

router-replace: $(STAMPS)/native
	@$(RUN)/python -m bench.router_replace $(BENCH_ARGS)

bench-load: $(STAMPS)/native
	@$(RUN)/python -m bench.load $(BENCH_ARGS)

bench-meeting: $(STAMPS)/native
	@$(RUN)/python -m bench.meeting $(BENCH_ARGS)
	$(RUN)/python -m bench.meeting_growth

bench-dispatch: $(STAMPS)/native
	@$(RUN)/python -m pytest bench/test_bench_dispatch.py bench/test_bench_consumer.py --figures

bench-store: $(STAMPS)/native
	@$(RUN)/python -m pytest bench/test_bench_store.py --figures

soak: $(STAMPS)/native
	@$(RUN)/python -m bench.load_soak $(BENCH_ARGS)

hostile: $(STAMPS)/native
	@$(RUN)/python -m pytest tests/hostile --full -s --timeout 600 $(PYTEST_ARGS)

faults: $(STAMPS)/native
	@$(RUN)/python -m tests.asr.upstream_faults $(FAULTS_ARGS)

chaos: $(STAMPS)/native
	@$(RUN)/python -m tests.nodes.chaos $(CHAOS_ARGS)

kills: $(STAMPS)/native
	@$(RUN)/python -m tests.nodes.kills $(CHAOS_ARGS)

meeting-kills: $(STAMPS)/native
	@$(RUN)/python -m tests.meeting.kills $(CHAOS_ARGS)

dispatch-kills: $(STAMPS)/native
	@$(RUN)/python -m tests.dispatch.kills $(CHAOS_ARGS)

queue-kills: $(STAMPS)/native
	@$(RUN)/python -m tests.dispatch.queue_kills $(CHAOS_ARGS)

dispatch-backlog: $(STAMPS)/native
	@$(RUN)/python -m tests.dispatch.backlog $(BENCH_ARGS)

consumer-kills: $(STAMPS)/native
	@$(RUN)/python -m tests.dispatch.consumer_kills $(CHAOS_ARGS)

stutter: $(STAMPS)/native $(STAMPS)/browser $(STAMPS)/nginx
	@$(RUN)/python -m tests.support.stutter -q -n 8 $(SPREAD) $(or $(PYTEST_ARGS),$(LONG) tests $(FEW:%=--ignore=%) $(ALONE:%=--ignore=%))

fuzz: $(STAMPS)/native
	@tools/fuzz.sh $(abspath $(RUN)/python) $(FUZZ_ARGS)

lint: $(STAMPS)/native
	@$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy
	$(RUN)/hadolint Dockerfile
	$(RUN)/shellcheck .ci/run tools/*.sh

lock: $(STAMPS)/python
	@tools/lock.sh $(RUN)/python $(LOCK_ARGS)

audit: $(STAMPS)/python
	@tools/audit.sh $(RUN)/python

docs: $(STAMPS)/native
	@$(RUN)/edgescribe config --reference > docs/configuration.md
	$(RUN)/python -m tests.docs.endpoints > docs/endpoints.md

html: docs
	@$(RUN)/python -m sphinx -W -b html docs build/html

console-pictures: $(STAMPS)/native $(STAMPS)/browser
	@$(RUN)/python -m tests.web.console_pictures

wheel: dist/stamp

test-wheel: wheel
	@tools/test_wheel.sh $(RUN)/python dist

release-check: $(STAMPS)/python
	@rm -f dist/stamp
	$(MAKE) --no-print-directory test-wheel
	tools/release_check.sh $(RUN)/python dist

prove-image: wheel
	@tools/prove_image.sh $(RUN)/python dist

clean:
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	rm -f _native/*.so _native/*.c _native/*.html
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMPS)/system: tools/system.sh
	@tools/system.sh
	mkdir -p $(@D)
	touch $@

$(STAMPS)/browser: tools/system.sh
	@tools/system.sh browser
	mkdir -p $(@D)
	touch $@

$(STAMPS)/nginx: tools/nginx.sh $(STAMPS)/python
	@tools/nginx.sh $(VENV)
	touch $@

$(STAMPS)/python: pyproject.toml tools/environment.sh $(STAMPS)/system
	@tools/environment.sh $(VENV)
	touch $@

$(STAMPS)/native: setup.py $(NATIVE) $(STAMPS)/python
	@echo "building the native extensions"
	$(RUN)/python setup.py -q build_ext --inplace
	touch $@

dist/stamp: $(SHIPPED) setup.py MANIFEST.in README.md LICENSE NOTICE tools/wheel.sh tools/notice.sh tools/version.sh $(STAMPS)/python
	@tools/wheel.sh $(VENV) dist
	touch $@
