# `make demo` and `make test` need Python 3.11 or later and make, nothing else: everything is
# installed into .venv, from whatever index pip is configured for.

CHECK_VERSION := import sys; sys.exit(sys.version_info < (3, 11))
# The first that is new enough; being on the path is not enough to tell (think of pyenv).
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14; do \
	if $$p -c '$(CHECK_VERSION)' 2>/dev/null; then echo $$p; break; fi; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The native part, where Rust and a C compiler are; nothing needs it.
NATIVE := $(VENV)/.native
PROTOC := .protoc/.installed
WHEELS := .wheels/.installed
# Of `make soak`; `make test` has run the seeds below 2000.
SEEDS := 20000
FIRST := 10000
# Of `make test-lowest` and `make test-pythons`.
PYTHONS := 3.12 3.13 3.14
PART := tests/unit tests/integration/test_client_rows.py tests/integration/test_client_processes.py

PEERS := spark dask ray arrow

# Of `make fuzz`: for the services; and beside them for all targets, half each of Rust and of Python.
SECONDS := 60
SEED := 1

# Of `make soak-engines`: runs of each test with faults.
RUNS := 20
ENGINES := dask ray daft

# Versions of Spark: all of `make test-spark` is run on the first, a part on the others.
SPARKS := 4.3 3.5

# A server of S3 for tests, of the Go module proxy.
VERSITYGW := github.com/versity/versitygw/cmd/versitygw@v1.8.0
# Renders the chart, of the Go module proxy.
HELM := helm.sh/helm/v3/cmd/helm@v3.22.0

.DEFAULT_GOAL := help
.PHONY: help demo native test-native fuzzers fuzz fuzz-native fuzz-parsers fuzz-targets fuzz-services native-breaks wheels test-wheels test test-all test-seeds test-portable test-access test-benchmarks test-versions versions test-tls test-lowest test-pythons engines test-engines \
	soak-engines spark spark-wheel test-java test-spark soak-spark stores test-stores test-web web packaging-tools test-packaging \
	lint unit soak bench bench-engines peers protos config-docs openapi golden clean
# Kept when something fails: what is installed is good for the next time.
.PRECIOUS: .engines/%/.installed .spark/%/.installed .spark/%/.native

help:
	@echo "make demo    run the main job on real input and print its report"
	@echo "make native  build and install the native part, where Rust 1.85 and a C compiler are"
	@echo "make wheels  the wheel of the native part, into dist/"
	@echo "make test    lint, types, layers, and every test that needs nothing else"
	@echo "make test-portable  a part of them without the native part"
	@echo "make test-access   who is let in, and what those who mean harm can do"
	@echo "make test-benchmarks  whole runs of cosco-bench, with small figures"
	@echo "make test-versions  the build before this one beside it, and a rolling upgrade"
	@echo "make test-tls    promises, kills and failover with TLS in all services and clients"
	@echo "make test-wheels  the wheels, installed where there is no compiler, and the demo"
	@echo "make test-native  format, clippy and the Rust tests of the native part, where Rust is"
	@echo "make fuzz    SECONDS=60 SEED=1 of fuzzing the services, and beside them all that parses"
	@echo "make fuzz-native    all that takes bytes of others in the native part alone"
	@echo "make fuzz-parsers   the same of what Python parses, where there is a wheel of Atheris"
	@echo "make fuzz-services  strange calls of all methods of both services, beside an honest job"
	@echo "make fuzzers build what make fuzz runs alone"
	@echo "make test-lowest  the unit tests with the lowest versions of what cosco needs"
	@echo "make test-pythons the same with the newest, on Python 3.12 to 3.14 where they are found"
	@echo "make test-engines  the tests that need Dask, Ray or Daft, each in an environment of its own"
	@echo "make soak-engines  the same with RUNS=20 runs of each fault, and all of Dask's own tests"
	@echo "make engines install those environments alone"
	@echo "make test-java     the tests of the plugin for Spark that are Java"
	@echo "make test-spark    the plugin for Spark: queries with faults on Spark 3.5 and 4"
	@echo "make soak-spark    all of them on both, with RUNS=20 runs of each fault, and TPC-H at scale 1"
	@echo "make spark   build the plugin and install the environments of make test-spark alone"
	@echo "make spark-wheel   the wheel cosco-spark with the plugin's jars, into dist/"
	@echo "make test-stores   what every store promises, and faults, on real servers of S3"
	@echo "make stores  install the environment and the servers of make test-stores alone"
	@echo "make test-web      the dashboard in a browser, and requests of all kinds to all routes of HTTP"
	@echo "make web     install the environment and the browser of make test-web alone"
	@echo "make test-packaging  the image's steps, the chart by Helm, and the units of systemd"
	@echo "make packaging-tools  install the environment and the Helm of make test-packaging alone"
	@echo "make lint    ruff, mypy, whether generated files are current"
	@echo "make unit    the unit tests alone"
	@echo "make soak    SEEDS=20000 simulated runs with faults, FIRST=10000 the first of them"
	@echo "make bench   1 GB through two daemons, with CPU seconds per stage"
	@echo "make bench-engines  Dask and Ray with and without Cosco, 1 GB, after make peers"
	@echo "make peers   install what cosco-bench peers compares with, 2 GB; make -k peers: what it can"
	@echo "make protos  generate cosco/protocol/pb from protos/"
	@echo "make openapi  generate docs/openapi.json from cosco/metadata/http"
	@echo "make golden  generate tests/golden from cosco/format and cosco/protocol"
	@echo "make config-docs  generate docs/configuration.md from cosco/config.py"

$(STAMP): pyproject.toml
	@"$(or $(PYTHON),false)" -c '$(CHECK_VERSION)' 2>/dev/null || { echo \
		"cosco needs Python 3.11 or later and found none$(PYTHON:%= in %): install it," \
		"or name one with make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); echo \
		"$(PYTHON) cannot make virtual environments: install its venv module" \
		"(on Debian and Ubuntu the package python3-venv)" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

# Not made where something is missing, so that it is looked for again the next time.
NATIVE_FILES := $(shell find native \( -path native/target -o -path native/fuzz \) -prune -o -type f -print) \
	tools/native_part.py
$(NATIVE): $(NATIVE_FILES) | $(STAMP)
	@$(BIN)/python tools/native_part.py install $@

# Into environments of other packages; built once, it takes seconds.
.engines/%/.native: $(NATIVE_FILES) | .engines/%/.installed $(NATIVE)
	@if [ ! -e .engines/$*/missing ]; then .engines/$*/bin/python tools/native_part.py install $@; fi

.fuzz/venv/.native: $(NATIVE_FILES) | .fuzz/venv/.installed $(NATIVE)
	@if [ ! -e .fuzz/venv/missing ]; then .fuzz/venv/bin/python tools/native_part.py install $@; fi

.stores/venv/.native: $(NATIVE_FILES) | .stores/venv/.installed $(NATIVE)
	@.stores/venv/bin/python tools/native_part.py install $@

native: $(NATIVE)

# Not of `make test`: it takes two minutes to compile what nothing else needs.
test-native: $(STAMP)
	@$(BIN)/python tools/native_part.py check

# What fails stays in .fuzz. The services wait more than they work; targets, of which one runs at a
# time, take what they leave. What one says comes when it is done.
fuzz: fuzzers
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target fuzz-services fuzz-targets

fuzz-targets: export SECONDS_EACH := $(shell echo $$((($(SECONDS) + 1) / 2)))
fuzz-targets: $(STAMP)
	@for part in fuzz-native fuzz-parsers; do \
		nice -n 5 $(MAKE) --no-print-directory $$part SECONDS=$$SECONDS_EACH || exit; done

fuzz-native: $(STAMP)
	@$(BIN)/python -m tools.fuzz --seconds $(SECONDS) --seed $(SEED)

fuzz-parsers: .fuzz/venv/.installed .fuzz/venv/.native
	@if [ -e .fuzz/venv/missing ]; then cat .fuzz/venv/missing; \
	else .fuzz/venv/bin/python -m tests.fuzz.parsers --seconds $(SECONDS) --seed $(SEED); fi

fuzz-services: $(STAMP) $(NATIVE)
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS) --seed $(SEED)

fuzzers: $(STAMP) $(NATIVE) .fuzz/venv/.installed .fuzz/venv/.native
	@$(BIN)/python -m tools.fuzz --seconds 0

# An environment of its own: nothing else needs Atheris.
.fuzz/venv/.installed: pyproject.toml tools/install_engine.py | $(STAMP)
	@$(BIN)/python tools/install_engine.py fuzz $(@D)
	@touch $@

# For `PYTHONPATH=.native-breaks .venv/bin/python -m tests.sim --breaks`: breaks of what is native are
# those of the native part then, not of its twin.
native-breaks: $(STAMP)
	@$(BIN)/python tools/native_part.py breaks .native-breaks

# For this machine's processor and C library: what auditwheel says is where it runs.
wheels: $(WHEELS)
	@mkdir -p dist
	@.wheels/bin/python tools/native_part.py wheel dist

test-wheels: $(STAMP)
	@if $(BIN)/python tools/native_part.py ready; then \
		$(MAKE) --no-print-directory wheels && $(BIN)/python tools/try_wheels.py dist; fi

$(WHEELS): tools/wheels.txt | $(STAMP)
	rm -rf $(@D)
	$(BIN)/python -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

demo: $(STAMP) $(NATIVE)
	@$(BIN)/cosco demo

# Most tests wait more than they work: simulated seeds, which would take all cores there are, get
# what those leave. Types are checked on one core.
test: $(STAMP) $(NATIVE)
	@$(MAKE) --no-print-directory --jobs 3 lint test-all test-seeds

test-all: $(STAMP)
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder $(addprefix --ignore=,$(ACCESS)) \
		tests/first_hour tests/integration tests/unit

# Who is let in, and what those who mean harm can do: clusters with TLS and tokens, and floods.
ACCESS := $(addprefix tests/integration/test_, tenants.py capabilities.py limited_handles.py \
	client_credentials.py tls.py hostile_streams.py http_attacks.py)
test-access: $(STAMP) $(NATIVE)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ACCESS)

# Without the native part: what is its own then, and the ways of rows from end to end.
PORTABLE := tests/unit/client/rpc tests/unit/process $(addprefix tests/integration/test_, \
	client_rows.py client_processes.py daemon.py failover.py follow.py groups_rows.py \
	tls.py tenants.py capabilities.py limited_handles.py \
	client_credentials.py)
test-portable: export COSCO_NATIVE := off
test-portable: $(STAMP)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(PORTABLE)

# Whole runs of cosco-bench, with small figures: they work more than they wait.
test-benchmarks: $(STAMP) $(NATIVE)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile tests/benchmarks

# The build before this one as service, as daemon and as client of the present one, and an upgrade
# under a running exchange. It comes from the history of the repository.
versions: $(STAMP)
	@$(BIN)/python tools/other_version.py .versions/before

test-versions: versions $(NATIVE)
	$(BIN)/python -m pytest --numprocesses 2 tests/versions

# What is promised, and kills, with TLS everywhere; but for one test, in which another user reads.
WITH_TLS := $(addprefix tests/integration/test_, kill_runs.py promises_rows.py promises_faults.py 	failover.py groups_faults.py groups_processes.py client_processes.py direct_reads.py draining.py)
test-tls: export PYTHONPATH := tests
test-tls: $(STAMP) $(NATIVE)
	$(BIN)/python -m pytest -p support.with_tls --numprocesses 2 --dist loadfile $(WITH_TLS) \
		--deselect tests/integration/test_direct_reads.py::test_a_user_who_may_not_read_the_store

test-seeds: $(STAMP)
	nice -n 19 $(BIN)/python -m pytest tests/sim

lint: $(STAMP) $(PROTOC)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	.protoc/bin/python tools/gen_protos.py --check
	$(BIN)/python tools/gen_config_docs.py --check
	$(BIN)/python tools/gen_openapi.py --check
	$(BIN)/python tools/gen_golden.py --check
	$(BIN)/mypy

# With the lowest versions of all that cosco names, on the oldest Python. uv is what can choose them; where
# it takes packages from is told by its own variables, as UV_DEFAULT_INDEX, not by pip's.
test-lowest: .versions/lowest/.installed
	.versions/lowest/bin/python -m pytest --numprocesses 2 $(PART)

.versions/lowest/.installed: pyproject.toml | $(STAMP)
	rm -rf $(@D)
	$(BIN)/uv venv --quiet --no-python-downloads --python 3.11 $(@D)
	$(BIN)/uv pip install --quiet --python $(@D)/bin/python --resolution lowest-direct \
		--editable '.[test]'
	@touch $@

# On every Python that is on the PATH, with the newest versions; says which is not.
test-pythons: $(PYTHONS:%=test-python%)

test-python%: $(STAMP)
	@if $(BIN)/uv python find --no-python-downloads $* > /dev/null 2>&1; \
	then $(MAKE) --no-print-directory .versions/$*/.installed && \
		.versions/$*/bin/python -m pytest --numprocesses 2 $(PART); \
	else echo "Python $* is not on the PATH, and not tested"; fi

.versions/%/.installed: pyproject.toml | $(STAMP)
	rm -rf $(@D)
	$(BIN)/uv venv --quiet --no-python-downloads --python $* $(@D)
	$(BIN)/uv pip install --quiet --python $(@D)/bin/python --editable '.[test]'
	@touch $@

# Environments of their own, as engines have their own opinion of pyarrow.
engines: $(ENGINES:%=.engines/%/.installed) $(ENGINES:%=.engines/%/.native)

.engines/%/.installed: pyproject.toml tools/install_engine.py | $(STAMP)
	@$(BIN)/python tools/install_engine.py $* $(@D)
	@touch $@

# Together, as they wait more than they work; what one says comes when it is done.
test-engines: $(ENGINES:%=.engines/%/.installed) $(ENGINES:%=.engines/%/.native)
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target $(ENGINES:%=test-engine-%)

test-engine-%: RUN := -m pytest
test-engine-dask: FLAGS := --numprocesses 2 --dist loadfile
test-engine-ray: RUN := tools/run_ray_tests.py
test-engine-%: .engines/%/.installed .engines/%/.native
	@if [ -e .engines/$*/missing ]; then cat .engines/$*/missing; \
	else .engines/$*/bin/python $(RUN) $(FLAGS) tests/engines/$*; fi

soak-engines: export COSCO_ENGINE_RUNS := $(RUNS)
soak-engines: test-engines

# An environment of its own, with libraries of stores and servers that are packages; what is not
# to be had on this machine is said, and its tests are skipped.
# An environment for each Spark, with the plugin as it lies here. Where a JDK or Maven is missing that is
# said, and nothing of Spark is tested.
spark: $(STAMP)
	@if $(BIN)/python tools/spark_plugin.py ready; then \
		$(MAKE) --no-print-directory $(SPARKS:%=.spark/%/.plugin); fi

spark-wheel: $(STAMP)
	@$(BIN)/python tools/spark_plugin.py wheel dist

.spark/%/.installed: pyproject.toml | $(STAMP)
	rm -rf $(@D)
	$(BIN)/python -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test-spark]' 'pyspark==$*.*'
	@touch $@

SPARK_FILES := $(shell find spark protos -path spark/target -prune -o -type f -print) tools/spark_plugin.py
.spark/.jars: $(SPARK_FILES) | $(STAMP)
	@mkdir -p $(@D)
	@$(BIN)/python tools/spark_plugin.py jars
	@touch $@

.spark/%/.plugin: .spark/.jars | .spark/%/.installed .spark/%/.native
	@.spark/$*/bin/python tools/spark_plugin.py install $@

.spark/%/.native: $(NATIVE_FILES) | .spark/%/.installed $(NATIVE)
	@.spark/$*/bin/python tools/native_part.py install $@

# Side by side, as much of it waits for leases and for executors.
SPARK_FLAGS := --numprocesses 2 --dist loadfile
# PySpark 3.5 leaves the socket of each `collect` open until it is collected itself.
SPARK_SOCKETS := -W 'ignore:unclosed <socket:ResourceWarning'
test-spark: spark
	@if $(BIN)/python tools/spark_plugin.py ready; then \
		.spark/$(firstword $(SPARKS))/bin/python -m pytest $(SPARK_FLAGS) tests/spark && \
		for version in $(wordlist 2, 9, $(SPARKS)); do \
			.spark/$$version/bin/python -m pytest $(SPARK_FLAGS) $(SPARK_SOCKETS) \
				-m every_spark tests/spark || exit; done; fi

# All tests on every version, with more runs of each fault, and TPC-H at scale 1.
test-java: $(STAMP)
	@$(BIN)/python tools/spark_plugin.py check

soak-spark: export COSCO_SPARK_RUNS := $(RUNS)
soak-spark: spark
	for version in $(SPARKS); do \
		.spark/$$version/bin/python -m pytest $(SPARK_SOCKETS) tests/spark || exit; done

stores: .stores/venv/.installed .stores/venv/.native .stores/hdfs/.installed
	@if [ -x .stores/bin/versitygw ]; then true; \
	elif ! command -v go > /dev/null; then \
		echo "go is not on the PATH: tests on versitygw, a server of S3, are skipped"; \
	else GOBIN="$(CURDIR)/.stores/bin" go install $(VERSITYGW); fi

.stores/venv/.installed: pyproject.toml | $(STAMP)
	rm -rf $(@D)
	$(BIN)/python -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test-stores]'
	@touch $@

# Not made where Java or Maven is missing, so that it is looked for again the next time.
.stores/hdfs/.installed: $(addprefix tests/stores/hdfs/,pom.xml Cluster.java install.py) | $(STAMP)
	@$(BIN)/python tests/stores/hdfs/install.py $(@D)

test-stores: stores
	.stores/venv/bin/python -m pytest tests/stores

# An environment of its own: what makes requests has its own opinion of much else. The browser is that
# of this machine, or Debian's; where there is none that is said, and its tests are skipped.
web: .web/venv/.installed .web/venv/.native
	@$(BIN)/python tools/install_chromium.py

.web/venv/.installed: pyproject.toml | $(STAMP)
	rm -rf $(@D)
	$(BIN)/python -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test-web]'
	@touch $@

.web/venv/.native: $(NATIVE_FILES) | .web/venv/.installed $(NATIVE)
	@.web/venv/bin/python tools/native_part.py install $@

test-web: web
	.web/venv/bin/python -m pytest --numprocesses 2 --dist loadfile tests/web

# An environment of its own, and Helm, which takes minutes to compile once; where Go is missing that is
# said, and what needs the chart rendered is skipped.
packaging-tools: .packaging/venv/.installed
	@if [ -x .packaging/bin/helm ]; then true; \
	elif ! command -v go > /dev/null; then \
		echo "go is not on the PATH: tests that render the chart by Helm are skipped"; \
	else GOBIN="$(CURDIR)/.packaging/bin" go install $(HELM); fi

.packaging/venv/.installed: pyproject.toml | $(STAMP)
	rm -rf $(@D)
	$(BIN)/python -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test-packaging]'
	@touch $@

test-packaging: packaging-tools
	.packaging/venv/bin/python -m pytest --numprocesses 2 --dist loadfile tests/deploying

unit: $(STAMP)
	$(BIN)/python -m pytest tests/unit

soak: $(STAMP)
	@$(BIN)/python -m tests.sim --first $(FIRST) --count $(SEEDS)

bench: $(STAMP)
	@$(BIN)/cosco-bench throughput

# One after another, and with nothing else running: they share the cores.
bench-engines: $(STAMP)
	@for partitions in 64 1000; do $(BIN)/cosco-bench peers --partitions $$partitions --replicas '' \
		--peers dask,dask_cosco,dask_cosco_replicas_2,ray,ray_disk,ray_cosco \
		--json engines-$$partitions.json || exit; done

# Environments of their own: their versions of pyarrow and pandas are not ours.
peers: $(PEERS:%=.peers/%/.installed)

.peers/%/.installed: benchmarks/peers/requirements/%.txt | $(STAMP)
	rm -rf $(@D)
	$(BIN)/python -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

protos: $(PROTOC)
	.protoc/bin/python tools/gen_protos.py

# Its compiler asks for another protobuf than the one the product is tested with.
$(PROTOC): tools/protoc.txt | $(STAMP)
	rm -rf $(@D)
	$(BIN)/python -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

config-docs: $(STAMP)
	$(BIN)/python tools/gen_config_docs.py

openapi: $(STAMP)
	$(BIN)/python tools/gen_openapi.py

golden: $(STAMP)
	$(BIN)/python tools/gen_golden.py

clean:
	rm -rf $(VENV) .engines .packaging .protoc .spark .stores .versions .web .wheels .native-breaks .fuzz native/target spark/target build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
