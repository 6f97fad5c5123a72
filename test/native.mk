# Builds programs from the pure core, without a server: the unit tests and the
# fuzz targets.  Run from the top: make -f test/native.mk B=build/unit KIND=unit

CORE = $(wildcard src/core/*.c)
PREFIX_unit = test
PREFIX_fuzz = fuzz
MAINS = $(wildcard test/$(KIND)/$(PREFIX_$(KIND))_*.c)
# Shared by the programs: the rest of their directory, and what the unit tests share.
HELPERS = $(filter-out $(MAINS) test/unit/test_%,$(sort $(wildcard test/unit/*.c test/$(KIND)/*.c)))
PROGRAMS = $(MAINS:test/$(KIND)/%.c=$(B)/%)
SHARED = $(CORE:%.c=$(B)/%.o) $(HELPERS:%.c=$(B)/%.o)

CC_unit = gcc
CC_fuzz = clang
LIBS_unit = -lcmocka
SANITIZE_unit = -fsanitize=address,undefined
SANITIZE_fuzz = -fsanitize=fuzzer,address,undefined
CFLAGS = -std=gnu11 -Wall -Wextra -Werror -g -O1 -MMD -MP -Isrc -Itest/unit -Itest/$(KIND) \
	$(SANITIZE_$(KIND)) -fno-sanitize-recover=all -fno-omit-frame-pointer

all: $(PROGRAMS)

$(PROGRAMS): $(B)/%: $(B)/test/$(KIND)/%.o $(SHARED)
	$(CC_$(KIND)) $(CFLAGS) -o $@ $^ $(LIBS_$(KIND)) -ljansson -lm

$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(CC_$(KIND)) $(CFLAGS) -c -o $@ $<

.SECONDARY:
-include $(shell find $(B) -name '*.d' 2>/dev/null)
