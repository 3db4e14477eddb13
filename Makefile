# SPDX-License-Identifier: GPL-2.0
#
# Copy-on-write page tables: kernel patches as an overlay, their tests and
# benchmarks. All work is done by scripts/cowpte/.

S := scripts/cowpte
KERNEL ?= debug
export KERNEL_SRC BUILD JOBS TAKE FULL DURATION ROUNDS KERNELS SEED SET QUICK NOBUILD KEEP

help:
	@echo 'Source:'
	@echo '  tree             make build/linux: the kernel source with the overlay applied,'
	@echo '                   or bring it up to date (KERNEL_SRC=DIR or TARBALL; else'
	@echo '                   the Debian package linux-source-6.12)'
	@echo '  refresh          write the overlay (patches, new files) anew from build/linux'
	@echo '                   (TAKE=tree or TAKE=overlay decides about what both changed)'
	@echo '  verify           is the overlay what build/linux holds? no fuzz? checkpatch?'
	@echo '  verify-releases  does it apply to every 6.12.y release that Debian offers now?'
	@echo 'Build:'
	@echo '  kernel           kernel-perf and kernel-debug'
	@echo '  kernel-perf      build/perf: as a distribution configures it, to be measured'
	@echo '  kernel-debug     build/debug: with all checks, to be tested'
	@echo '  kernel-kasan, kernel-kcsan'
	@echo '                   the debug kernel with KASAN; with KCSAN for what is changed'
	@echo '  kernel-stock-perf, kernel-stock-debug, ...'
	@echo '                   the same ones from the untouched base'
	@echo '  user             build/user: cowpte and cowpte-bench'
	@echo '  selftests        build/selftests: the selftests'
	@echo 'Run (in QEMU, on this machine'"'"'s own root directory, read-only):'
	@echo '  check            everything: verify, build, selftests, the quick ones of the'
	@echo '                   kernel'"'"'s own mm tests in force mode, a smoke test of the'
	@echo '                   perf kernel (FULL=1: all selftests in force mode, too)'
	@echo '  mm-tests         all mm tests of the kernel, on an untouched kernel and in force'
	@echo '                   mode, compared (TESTS="cow mremap_test": only these)'
	@echo '  mutations        can the tests fail? break the kernel in many ways, one after the'
	@echo '                   other, and see that they notice (about half a minute for each;'
	@echo '                   ONLY="01 07": only these)'
	@echo '  static           sparse, smatch, coccinelle, gcc W=1 and checkpatch: what do they'
	@echo '                   say that they do not say of the untouched files?'
	@echo '  soak             random load with random settings, round after round, for an hour'
	@echo '                   (DURATION=SECONDS KERNELS="debug kasan" SEED= ROUNDS= QUICK=1)'
	@echo '  bench            benchmarks, counted in instructions; JSON in build/bench'
	@echo '  bench-full       all benchmarks and a report with plots, in build/report'
	@echo '                   (takes an hour or two; make deps-bench first)'
	@echo '  bench-report     only the report, from what is measured'
	@echo '  shell            an interactive guest (KERNEL=debug)'
	@echo '  record-stock     record for check what the quick mm tests say on an untouched'
	@echo '                   kernel (TESTS=...)'
	@echo 'Other:'
	@echo '  deps             install the Debian packages that are missing (as root)'
	@echo '  deps-bench, deps-static'
	@echo '                   the same, and those that only bench-full or static needs'
	@echo '  clean            remove what was built; build/linux stays'
	@echo
	@echo 'See $(S)/run.sh -h for running a single command in a guest.'

tree:
	@$(S)/tree.sh

refresh:
	@$(S)/refresh.sh

verify: tree-exists
	@$(S)/verify.sh

verify-releases:
	@$(S)/verify.sh releases

kernel: tree-exists
	@$(S)/kernel.sh perf debug

kernel-%: tree-exists
	@$(S)/kernel.sh $*

user:
	@$(S)/user.sh bench

selftests: tree-exists
	@$(S)/user.sh selftests

check:
	@$(S)/check.sh

mm-tests: kernel-stock-debug kernel-debug
	@$(S)/mm-tests.sh $(TESTS)

record-stock: kernel-stock-debug
	@$(S)/mm-tests.sh record $(TESTS)

mutations: tree-exists
	@$(S)/mutations.sh $(ONLY)

static: tree-exists
	@$(S)/static.sh

soak: tree-exists
	@$(S)/soak.sh

bench: tree-exists
	@$(S)/bench.sh

bench-full: tree-exists
	@$(S)/bench.sh full

bench-report:
	@$(S)/bench.sh report

shell: kernel-$(KERNEL)
	@$(S)/run.sh -k $(KERNEL) -S

deps:
	@$(S)/deps.sh

deps-bench deps-static:
	@$(S)/deps.sh build guest test soak $(@:deps-%=%)

clean:
	@$(S)/clean.sh

# A tree that is there is left alone: it may hold work that is not refreshed.
tree-exists:
	@[ -d "$${BUILD:-build}/linux" ] || $(S)/tree.sh

.PHONY: help tree refresh verify verify-releases kernel user selftests check \
	mm-tests mutations static soak record-stock bench bench-full bench-report \
	shell deps deps-bench deps-static clean tree-exists
.NOTPARALLEL:
