# Kigo: `make demo`, `make test`, `make install PREFIX=...`; `make help` lists the rest.
#
# cargo decides what has to be rebuilt of the library; make only does the C programs and the installation.
# LIB and STATIC_LIB may name a library that is built already: then cargo is not asked.

PYTHON ?= python3
CARGO ?= cargo
INSTALL ?= install
BUILD ?= build
PREFIX ?= /usr/local
MODEL ?= SmolLM2-135M-Instruct
PROMPT ?= What is gravity?
N ?= 128
TEST_MODELS ?= SmolLM2-135M-Instruct Qwen2.5-Coder-0.5B-Instruct Gemma-3-270M
# A base model without a chat template goes on with the text instead; `make demo CHAT=` for one of your own.
CHAT ?= $(if $(findstring gemma-3-270m,$(shell echo '$(notdir $(MODEL))' | tr A-Z a-z)),,--chat)

VERSION := $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' Cargo.toml | head -n 1)
VERSION_WORDS := $(subst ., ,$(VERSION))
ABI_VERSION := $(shell sed -n 's/^.define KIGO_ABI_VERSION \([0-9]*\)$$/\1/p' include/kigo.h)
SOVERSION := $(word 1,$(VERSION_WORDS)).$(ABI_VERSION)
# The first release of this ABI: programs made for it or a later one may have this library.
ABI_SINCE := $(shell awk '$$2 == "$(ABI_VERSION)" { print $$1; exit }' abi/releases.txt)

CARGO_TARGET_DIR ?= target
BUILT := $(CARGO_TARGET_DIR)/release
# A library that is named is taken as it is, and so is the one that was built where there is no cargo (sudo make install).
ASKED := $(if $(filter undefined,$(origin LIB)),$(shell command -v $(CARGO)),)
LIB ?= $(BUILT)/libkigo.so
STATIC_LIB ?= $(patsubst %.so,%.a,$(LIB))
# A library has no paths of this machine.
export RUSTFLAGS := $(if $(ASKED),$(shell scripts/remap.sh),$(RUSTFLAGS))

# What the archive exports.
FUNCTIONS = $(shell sed -n 's/^\(kigo_[a-z0-9_]*\) .*/\1/p' abi/symbols.txt)
OBJCOPY ?= objcopy

STRIP ?= strip

CFLAGS ?= -O3 -g
C_WARNINGS := -std=c99 -Wall -Wextra -Wpedantic -Werror
# Those that `kigo NAME` runs.
NAMED := generate chat batch scheduler bench compare haiku doctor devices window
PROGRAMS := $(addprefix $(BUILD)/,kigo plugin $(NAMED))

# The server is C++ and stands on two Debian packages, libcpp-httplib-dev of this series and nlohmann-json3-dev; it is built where
# they are.
SERVE_PACKAGES := 'cpp-httplib >= 0.11' 'cpp-httplib < 0.12' nlohmann_json
HAS_SERVE := $(shell pkg-config --exists $(SERVE_PACKAGES) 2>/dev/null && echo yes)
ifeq ($(HAS_SERVE),yes)
NAMED += serve
PROGRAMS += $(BUILD)/serve
endif
CXXFLAGS ?= -O2 -g
CXX_WARNINGS := -std=c++17 -Wall -Wextra -Wpedantic -Werror

LIBDIR ?= $(PREFIX)/lib
BINDIR ?= $(PREFIX)/bin
LIBEXECDIR ?= $(PREFIX)/libexec/kigo
LICENSEDIR ?= $(PREFIX)/share/licenses/kigo
INCLUDEDIR ?= $(PREFIX)/include
into = $(DESTDIR)$(abspath $(1))
# From one of them to another: what is installed may be moved as a whole.
from = $(shell realpath -m --relative-to=$(abspath $(1)) $(abspath $(2)))
RPATHS = -Wl,-rpath,'$$ORIGIN:$$ORIGIN/$(call from,$(LIBEXECDIR),$(LIBDIR))'
# Where the loader looks by itself, a program has to be told nothing.
KNOWN_TO_LOADER := /lib /usr/lib /lib64 /usr/lib64 $(addprefix /usr/lib/,$(shell $(CC) -print-multiarch 2>/dev/null))
PC_RPATH = $(if $(filter $(KNOWN_TO_LOADER),$(abspath $(LIBDIR))),,-Wl$(comma)-rpath$(comma)$${libdir})
comma := ,

# nvcc, for a machine without CUDA's toolkit: build.rs looks for it in .venv too.
VENV_PACKAGES := .venv/lib/python3/site-packages
NVCC_PACKAGES := nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-runtime==13.0.96 \
  nvidia-cuda-cccl==13.0.85
HAS_NVCC := $(shell { [ -n "$(CUDA_HOME)" ] && [ -x "$(CUDA_HOME)/bin/nvcc" ]; } || command -v nvcc || \
  ls $(VENV_PACKAGES)/nvidia/*/bin/nvcc 2>/dev/null)
HAS_DRIVER := $(shell ls /proc/driver/nvidia/version 2>/dev/null || command -v nvidia-smi)

.PHONY: all lib examples cuda emulate demo test fuzz sanitize fetch header third-party freeze install uninstall clean help
.DELETE_ON_ERROR:

all: lib $(BUILD)/libkigo.a examples

lib:
ifneq ($(ASKED),)
	$(CARGO) build --release --lib
else
	@[ -f '$(LIB)' ] || { echo 'libkigo.so: $(LIB) is not there: build it with cargo (make), or name it (LIB=)' >&2; exit 1; }
endif

# cargo's archive holds the standard library's and every dependency's objects with their global names, which a host that
# has another copy of one of them could not be linked with. This one is a single object with the API's names and no
# other; what nothing reaches is left out of it. (Bitcode that the standard library carries does not survive the joining.)
$(STATIC_LIB): lib
	@[ -f '$@' ] || { echo 'libkigo.a: $@ is not there: name it (STATIC_LIB=)' >&2; exit 1; }
$(BUILD)/libkigo.a: $(STATIC_LIB) abi/symbols.txt
	@mkdir -p $(BUILD)
	$(LD) -r --gc-sections --force-group-allocation $(patsubst %,-u %,$(FUNCTIONS)) -o $(BUILD)/kigo.o $(STATIC_LIB)
	$(OBJCOPY) --wildcard --keep-global-symbol='kigo_*' --strip-unneeded -R .llvmbc -R .llvmcmd $(BUILD)/kigo.o
	@rm -f $@
	$(AR) rcsD $@ $(BUILD)/kigo.o
	@rm -f $(BUILD)/kigo.o

examples: $(PROGRAMS)

cuda:
ifeq ($(HAS_NVCC),)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --target $(VENV_PACKAGES) $(NVCC_PACKAGES)
	@touch cuda/build.rs # which looked for it in vain before, and is not asked again otherwise
endif

# The GPU's tests without a GPU: the kernels compiled for the host (cuda/emulate/emulate.h says what that shows). In a target folder of
# its own, so that the library in target/ stays the real one; CI gives it EMULATE_TARGET=target, where all dependencies are.
EMULATE_TARGET ?= $(CARGO_TARGET_DIR)/emulate
EMULATED = KIGO_CUDA=emulate KIGO_REQUIRE_CUDA=1 KIGO_FEW=1 KIGO_DEVICE=cuda:0 KIGO_SCHEDULES=3 \
  $(CARGO) test --release --target-dir $(EMULATE_TARGET)
emulate:
	$(EMULATED) --test gpu -- $(TEST_FLAGS)
	KIGO_EMULATE=80 $(EMULATED) --test gpu -- forward::head_sizes $(TEST_FLAGS)

# Where there is an NVIDIA driver, the demo runs on the GPU.
ifneq ($(HAS_DRIVER),)
demo: cuda
endif

# As the loader looks for it: under its soname, beside the programs.
$(BUILD)/libkigo.so.$(SOVERSION): lib
	@mkdir -p $(BUILD)
	@ln -sfn $(abspath $(LIB)) $@
	@ln -sfn libkigo.so.$(SOVERSION) $(BUILD)/libkigo.so

# The symbolic link is always made anew, but only a changed header or source compiles a program again.
$(BUILD)/%: examples-c/%.c $(wildcard examples-c/*.h) include/kigo.h | $(BUILD)/libkigo.so.$(SOVERSION)
	$(CC) $(C_WARNINGS) $(CFLAGS) -Iinclude -o $@ $< $(LDFLAGS) -L$(BUILD) -lkigo $(RPATHS) -pthread -lm

# What all its files include is compiled once.
SERVE_SOURCES := $(wildcard examples-c/serve/*.cpp)
SERVE_OBJECTS := $(patsubst examples-c/serve/%.cpp,$(BUILD)/serve.o/%.o,$(SERVE_SOURCES))
SERVE_CXX = $(CXX) $(CXX_WARNINGS) $(CXXFLAGS) -Iinclude $(shell pkg-config --cflags $(SERVE_PACKAGES)) -pthread
$(BUILD)/serve.o/service.h.gch: $(wildcard examples-c/serve/*.h) include/kigo.h include/kigo.hpp
	@mkdir -p $(@D)
	$(SERVE_CXX) -x c++-header -o $@ examples-c/serve/service.h
$(BUILD)/serve.o/%.o: examples-c/serve/%.cpp $(BUILD)/serve.o/service.h.gch
	$(SERVE_CXX) -include $(BUILD)/serve.o/service.h -c -o $@ $<
$(BUILD)/serve: $(SERVE_OBJECTS) | $(BUILD)/libkigo.so.$(SOVERSION)
	$(CXX) $(CXXFLAGS) -o $@ $(SERVE_OBJECTS) $(LDFLAGS) -L$(BUILD) -lkigo $(shell pkg-config --libs $(SERVE_PACKAGES)) \
	  $(RPATHS) -pthread

# Runs the others.
$(BUILD)/kigo: examples-c/kigo.c include/kigo.h
	@mkdir -p $(@D)
	$(CC) $(C_WARNINGS) $(CFLAGS) -Iinclude -DKIGO_LIBEXEC='"$(call from,$(BINDIR),$(LIBEXECDIR))"' -o $@ $< $(LDFLAGS)

# Resolves everything at run time: it must not be linked with the library that it loads.
$(BUILD)/plugin: examples-c/plugin.c include/kigo.h | $(BUILD)/libkigo.so.$(SOVERSION)
	$(CC) $(C_WARNINGS) $(CFLAGS) -Iinclude -o $@ $< $(LDFLAGS) -ldl

demo fetch: export MODEL := $(MODEL)
demo: export PROMPT := $(PROMPT)
demo:
	@$(MAKE) --no-print-directory examples
	@file=$$($(PYTHON) scripts/fetch_model.py "$$MODEL") && \
	printf '\n> %s\n\n' "$$PROMPT" && \
	$(BUILD)/generate -m "$$file" $(CHAT) -p "$$PROMPT" -n $(N)

fetch:
	$(PYTHON) scripts/fetch_model.py "$$MODEL"

# For libtest: `make test TEST_FLAGS="fork:: --test-threads 1"`.
TEST_FLAGS ?=
test:
	$(PYTHON) scripts/fetch_model.py $(TEST_MODELS)
	$(PYTHON) scripts/fetch_vocabularies.py
	$(CARGO) test --release --no-fail-fast -- --show-output $(TEST_FLAGS)

# What looks for the next fault (fuzz/README.md): each target for so many seconds, in one job.
FUZZ_SECONDS ?= 60
fuzz:
	for target in $$(fuzz/run.sh --list); do fuzz/run.sh $$target $(FUZZ_SECONDS) || exit 1; done

sanitize:
	scripts/sanitize.sh

header:
	KIGO_WRITE_HEADER=1 $(CARGO) test --test repo abi::the_committed_header_is_the_generated_one

third-party:
	$(PYTHON) scripts/third_party.py

# Paths in kigo.pc begin where it lies; those in CMake's package, too.
fill = sed -e 's|@PREFIX@|$(call from,$(LIBDIR)/pkgconfig,$(PREFIX))|' -e 's|@LIBDIR@|$(call from,$(LIBDIR)/pkgconfig,$(LIBDIR))|' \
  -e 's|@INCLUDEDIR@|$(call from,$(LIBDIR)/pkgconfig,$(INCLUDEDIR))|' -e 's|@RPATH@|$(PC_RPATH)|' \
  -e 's|@VERSION@|$(VERSION)|g' -e 's|@SOVERSION@|$(SOVERSION)|g' -e 's|@ABI_SINCE@|$(ABI_SINCE)|g' \
  -e 's|@INCLUDE_FROM_CMAKE@|$(call from,$(LIBDIR)/cmake/kigo,$(INCLUDEDIR))|'

install: lib $(BUILD)/libkigo.a examples
	$(INSTALL) -d $(call into,$(LIBDIR)/pkgconfig) $(call into,$(LIBDIR)/cmake/kigo) $(call into,$(INCLUDEDIR)) \
	  $(call into,$(LICENSEDIR)) $(call into,$(BINDIR)) $(call into,$(LIBEXECDIR))
	$(INSTALL) -m 644 LICENSE-APACHE LICENSE-MIT LICENSE-IQ-GRIDS THIRD-PARTY $(call into,$(LICENSEDIR))
	$(INSTALL) -m 755 $(LIB) $(call into,$(LIBDIR)/libkigo.so.$(VERSION))
	$(STRIP) --strip-unneeded $(call into,$(LIBDIR)/libkigo.so.$(VERSION))
	ln -sfn libkigo.so.$(VERSION) $(call into,$(LIBDIR)/libkigo.so.$(SOVERSION))
	ln -sfn libkigo.so.$(SOVERSION) $(call into,$(LIBDIR)/libkigo.so)
	$(INSTALL) -m 644 $(BUILD)/libkigo.a $(call into,$(LIBDIR)/libkigo.a)
	$(INSTALL) -m 644 $(wildcard include/kigo.h include/kigo.hpp) $(call into,$(INCLUDEDIR))
	$(INSTALL) -m 755 $(BUILD)/kigo $(call into,$(BINDIR)/kigo)
	$(INSTALL) -m 755 $(addprefix $(BUILD)/,$(NAMED)) $(call into,$(LIBEXECDIR))
	$(STRIP) $(call into,$(BINDIR)/kigo) $(addprefix $(call into,$(LIBEXECDIR))/,$(NAMED))
	$(fill) packaging/kigo.pc.in >$(call into,$(LIBDIR)/pkgconfig/kigo.pc)
	$(fill) packaging/kigoConfig.cmake.in >$(call into,$(LIBDIR)/cmake/kigo/kigoConfig.cmake)
	$(fill) packaging/kigoConfigVersion.cmake.in >$(call into,$(LIBDIR)/cmake/kigo/kigoConfigVersion.cmake)

# What this release is held to from now on: docs/ABI.md.
freeze: lib
	abi/release.sh $(VERSION) $(LIB) include/kigo.h

uninstall:
	rm -f $(call into,$(LIBDIR))/libkigo.so $(call into,$(LIBDIR))/libkigo.so.$(SOVERSION) \
	  $(call into,$(LIBDIR))/libkigo.so.$(VERSION) $(call into,$(LIBDIR))/libkigo.a \
	  $(call into,$(LIBDIR))/pkgconfig/kigo.pc $(call into,$(INCLUDEDIR))/kigo.h $(call into,$(INCLUDEDIR))/kigo.hpp
	rm -f $(call into,$(BINDIR)/kigo)
	rm -rf $(call into,$(LIBDIR))/cmake/kigo $(call into,$(LICENSEDIR)) $(call into,$(LIBEXECDIR))

clean:
	$(CARGO) clean
	rm -rf $(BUILD)

help:
	@echo 'make                                the library (release) and the programs of examples-c/ into $(BUILD)/'
	@echo 'make emulate                        the GPU tests without a GPU: the kernels compiled for the processor'
	@echo 'make cuda                           nvcc into .venv/, where there is none: then the library also runs on NVIDIA GPUs'
	@echo 'make demo [MODEL=] [PROMPT=] [N=]   an answer to a prompt; MODEL is a name of scripts/models.json or a path'
	@echo 'make test                           fetches the models and vocabularies that the tests use, and runs every test'
	@echo 'make fuzz [FUZZ_SECONDS=]           the fuzz targets under AddressSanitizer, one after the other'
	@echo 'make sanitize                       the C programs under AddressSanitizer and UndefinedBehaviorSanitizer'
	@echo 'make fetch MODEL=                   puts a model into models/'
	@echo 'make header                         writes include/kigo.h anew'
	@echo 'make third-party                    writes THIRD-PARTY anew: what is linked, and its licences'
	@echo 'make freeze                         keeps in abi/ what this release is held to'
	@echo 'make install PREFIX= [DESTDIR=]     library, headers, kigo.pc, the CMake package and the programs; make uninstall'
	@echo 'make clean                          removes what was built; models/ stays'
