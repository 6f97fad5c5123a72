# meal_planner: an event-driven meal planner inside PostgreSQL.
#
#   make demo                   run the main job in a private cluster below build/
#   make check                  run every test
#   make && sudo make install   build and install for a server of your own
#
# The first two need nothing but git, make and root (or sudo) on Debian 12.
# `make help` lists all targets.

# The server to build for.  PG_CONFIG wins over PG_MAJOR.
PG_MAJOR ?= 15
PG_CONFIG ?= $(firstword $(wildcard /usr/lib/postgresql/$(PG_MAJOR)/bin/pg_config) pg_config)

# Parts of the install script, in the order of their dependencies.
SQL_BUS = schema error_class event stream idempotency subscription attempt delivery retry_budget \
	dead_letter alert history unsubscribe saga_lock order claim operation purge replay breaker worker redrive \
	redrive_step saga_definition saga saga_step saga_admin alert_view sweep notice retention metrics schedule grant_profile
SQL_MEALS = food starter_unit starter_food starter_measure starter_nutrient recipe \
	nutrition nutrition_goal meal_plan shopping_list meal_plan_saga meals_subscriptions
SQL_PARTS = sql/head.sql $(SQL_BUS:%=sql/bus/%.sql) $(SQL_MEALS:%=sql/meals/%.sql) sql/bus/privileges.sql

EXTENSION = meal_planner
EXTVERSION = $(shell sed -n "s/^default_version *= *'\(.*\)'.*/\1/p" meal_planner.control)
MODULE_big = meal_planner
SRCS = $(sort $(wildcard src/*.c src/core/*.c src/bus/*.c src/meals/*.c))
OBJS = $(SRCS:.c=.o)
DATA_built = $(EXTENSION)--$(EXTVERSION).sql

PG_CPPFLAGS = -Isrc
PG_CFLAGS = -std=gnu11 -Wall -Wextra -Wno-unused-parameter -MMD -MP $(if $(filter-out 0,$(WERROR)),-Werror)
SHLIB_LINK = -ljansson -lm -Wl,--version-script=$(MODULE_big).map
EXTRA_CLEAN = $(MODULE_big).map $(wildcard $(addsuffix *.[od],src/ src/core/ src/bus/ src/meals/)) \
	$(wildcard $(addsuffix *.bc,src/ src/core/ src/bus/ src/meals/))

# Targets that run in a private cluster.  Their work is in shell scripts,
# because make reads this file before the packages are installed.
SUITES = unit regress isolation pgtap tap model fuzz spin control install
AS_USER = @bash scripts/as-user
export PG_MAJOR
unexport MAKEFLAGS MAKELEVEL

.PHONY: all help stage demo check $(SUITES:%=check-%) check-valgrind bench bench-peers psql clean clean-build

all:

## make                 build the extension for the server of PG_CONFIG
## make install         install it there (as root)
## make demo            run the main job in a private cluster, which stays up
## make psql            look around in it
## make check           run every suite; the last line is the sum
## make check-SUITE     run one: unit regress isolation pgtap tap model fuzz spin control install
## make check-valgrind  run the regress suite under valgrind (slow, not part of check)
## make bench           compare with plain SQL and the peers that are there
## make bench-peers      install the peers (Debian, npm, git)
## make clean           stop the private clusters and remove all that was made
## PG_MAJOR=17          take another server (or PG_CONFIG=/path/to/pg_config)
help:
	@sed -n 's/^## //p' Makefile

stage:
	@bash scripts/setup build
	$(AS_USER) bash scripts/stage

demo: stage
	$(AS_USER) bash demo/run

$(SUITES:%=check-%): check-%:
	@bash scripts/setup check
	$(AS_USER) bash scripts/check $*

check-valgrind:
	@bash scripts/setup valgrind
	$(AS_USER) bash scripts/check valgrind

bench: stage
	$(AS_USER) bash bench/run

bench-peers:
	@bash scripts/setup build
	@bash bench/peers

psql:
	$(AS_USER) bash scripts/psql

clean: clean-build
clean-build:
	@bash scripts/clean

# PGXS has a target named check, which would collide with ours.
PGXS := $(if $(filter check,$(MAKECMDGOALS)),,$(wildcard $(shell $(PG_CONFIG) --pgxs 2>/dev/null)))
ifneq ($(PGXS),)
include $(PGXS)
else
check:
	@bash scripts/setup check
	$(AS_USER) bash scripts/check

all install uninstall installcheck:
	@echo "the server's development files are missing: install postgresql-server-dev-$(PG_MAJOR) and libjansson-dev, or set PG_CONFIG" >&2; exit 1

clean:
	rm -f $(MODULE_big).so $(DATA_built) $(EXTRA_CLEAN)
endif

-include $(wildcard $(OBJS:.o=.d))

# Joined in one fixed order; a part that nobody listed is a mistake.
$(DATA_built): $(SQL_PARTS) Makefile
	@unlisted="$(filter-out $(SQL_PARTS),$(wildcard sql/*.sql sql/bus/*.sql sql/meals/*.sql))"; \
	if [ -n "$$unlisted" ]; then echo "not listed in the Makefile: $$unlisted" >&2; exit 1; fi
	cat $(SQL_PARTS) > $@

# Only what the server looks up is exported, so that no symbol of ours can
# meet another library's.  Servers before 16 cannot do it by visibility.
$(MODULE_big).so: $(MODULE_big).map
$(MODULE_big).map: $(SRCS) Makefile
	@{ echo '{ global: Pg_magic_func;'; \
	  sed -n 's/^PGDLLEXPORT .* \([A-Za-z0-9_]*\)(.*/ \1;/p' $(SRCS); \
	  sed -n 's/^PG_FUNCTION_INFO_V1(\([A-Za-z0-9_]*\)).*/ \1; pg_finfo_\1;/p' $(SRCS); \
	  echo ' local: *; };'; } > $@
