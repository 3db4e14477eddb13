# SPDX-License-Identifier: GPL-2.0
#
# Copy-on-write page tables: kernel patches as an overlay, their tests and
# benchmarks. All work is done by scripts/cowpte/.

S := scripts/cowpte
KERNEL ?= debug
export CONFIG KERNEL_SRC BUILD DEPS JOBS TAKE FULL DURATION ROUNDS KERNELS SEED SET QUICK NOBUILD KEEP

help:
	@echo 'All of these install the Debian packages that they need, if run as root, after'
	@echo 'saying which (DEPS=no refuses), and say how long they take.'
	@echo 'Source:'
	@echo '  tree             make build/linux: the kernel source with the overlay applied,'
	@echo '                   or bring it up to date (KERNEL_SRC=DIR or TARBALL; else'
	@echo '                   the Debian package linux-source-6.12)'
	@echo '  refresh          write the overlay (patches, new files) anew from build/linux'
	@echo '                   (TAKE=tree or TAKE=overlay decides about what both changed)'
	@echo '  verify           is the overlay what build/linux holds? no fuzz? checkpatch?'
	@echo '                   shellcheck?'
	@echo '  verify-releases  does it apply to every 6.12.y release that Debian offers now?'
	@echo 'Build:'
	@echo '  kernel           kernel-perf and kernel-debug'
	@echo '  kernel-perf      build/perf: as a distribution configures it, to be measured'
	@echo '  kernel-debug     build/debug: with all checks, to be tested'
	@echo '  kernel-kasan, kernel-kcsan'
	@echo '                   the debug kernel with KASAN; with KCSAN for what is changed'
	@echo '  kernel-stock-perf, kernel-stock-debug, ...'
	@echo '                   the same ones from the untouched base'
	@echo '  build-matrix     does it build in other configurations? only what is changed'
	@echo '                   (ONLY="tiny rt": only these)'
	@echo '  kernel-ppc64le-debug, kernel-ppc64le-perf'
	@echo '                   for powerpc, by a cross-compiler'
	@echo '  user             build/user: cowpte and cowpte-bench'
	@echo '  selftests        build/selftests: the selftests'
	@echo '  user-ppc64le     build/ppc64le: both for powerpc, and the root of its guests'
	@echo 'Run (in QEMU, on this machine'"'"'s own root directory, read-only):'
	@echo '  check            everything: verify, build, selftests, the quick ones of the'
	@echo '                   kernel'"'"'s own mm tests in force mode, a smoke test of the'
	@echo '                   perf kernel (FULL=1: all selftests in force mode, too)'
	@echo '  check-ppc64le    the selftests on powerpc: radix passes, hash refuses (1 1/2 hours;'
	@echo '                   TESTS="tree pins": only these)'
	@echo '  test-scripts     are the scripts good to who comes here first?'
	@echo '  mm-tests         all mm tests of the kernel, on an untouched kernel and in force'
	@echo '                   mode, compared (TESTS="cow mremap_test": only these)'
	@echo '  mutations        can the tests fail? break the kernel in many ways, one after the'
	@echo '                   other, and see that they notice (about half a minute for each;'
	@echo '                   ONLY="01 07": only these)'
	@echo '  static           sparse, smatch, coccinelle, gcc W=1 and checkpatch: what do they'
	@echo '                   say that they do not say of the untouched files?'
	@echo '  soak             random load with random settings, round after round, for an hour'
	@echo '                   (DURATION=SECONDS KERNELS="debug kasan" SEED= ROUNDS= QUICK=1)'
	@echo '  demo             the first figures: fork() of 64 MiB and 1 GiB, a small Redis'
	@echo '  bench            benchmarks, counted in instructions; JSON in build/bench'
	@echo '  bench-full       all benchmarks and a report with plots, in build/report'
	@echo '  bench-report     only the report, from what is measured'
	@echo '  shell            an interactive guest (KERNEL=debug)'
	@echo '  record-stock     record for check what the quick mm tests say on an untouched'
	@echo '                   kernel (TESTS=...)'
	@echo 'Install:'
	@echo '  deb              Debian packages of a kernel and of the tools, in build/packages'
	@echo '                   (CONFIG=debian, more than an hour; cloud, running, small or a FILE)'
	@echo '  deb-tools        only the tools'
	@echo '  deb-test         are they good? on an image of Debian 13, through its own boot'
	@echo '                   loader and systemd, with its Redis (3 minutes, and 10 to build them)'
	@echo 'Send:'
	@echo '  series           the overlay as a series of patches, in build/series'
	@echo '  series-check     the same; does each step build, off and on? (15 minutes)'
	@echo '  patch            build/cow_pte.patch, all in one, for a kernel tree of one'"'"'s own'
	@echo 'Other:'
	@echo '  deps             only install the packages that are missing (as root)'
	@echo '  deps-bench, deps-static'
	@echo '                   the same, and those that only bench-full or static needs'
	@echo '  clean            remove what was built; build/linux stays'
	@echo
	@echo 'See $(S)/run.sh -h for running a single command in a guest.'

tree:
	@$(S)/tree.sh

refresh:
	@$(S)/refresh.sh

verify:
	@$(S)/verify.sh

verify-releases:
	@$(S)/verify.sh releases

kernel:
	@$(S)/kernel.sh perf debug

kernel-%:
	@$(S)/kernel.sh $*

build-matrix:
	@$(S)/matrix.sh $(ONLY)

user:
	@$(S)/user.sh bench

user-ppc64le:
	@$(S)/user.sh ppc64le

check-ppc64le:
	@$(S)/check-ppc64le.sh $(TESTS)

selftests:
	@$(S)/user.sh selftests

check:
	@$(S)/check.sh

test-scripts:
	@$(S)/test-scripts.sh

mm-tests:
	@$(S)/mm-tests.sh $(TESTS)

record-stock:
	@$(S)/mm-tests.sh record $(TESTS)

mutations:
	@$(S)/mutations.sh $(ONLY)

static:
	@$(S)/static.sh

soak:
	@$(S)/soak.sh

deb:
	@$(S)/deb.sh

deb-tools:
	@$(S)/deb.sh tools

deb-test:
	@$(S)/deb-test.sh

series:
	@$(S)/series.sh

series-check:
	@$(S)/series.sh check

patch:
	@$(S)/series.sh patch

demo:
	@$(S)/bench.sh demo

bench:
	@$(S)/bench.sh

bench-full:
	@$(S)/bench.sh full

bench-report:
	@$(S)/bench.sh report

shell: kernel-$(KERNEL)
	@$(S)/run.sh -k $(KERNEL) -S

deps:
	@$(S)/deps.sh

deps-bench deps-static:
	@$(S)/deps.sh build verify guest redis test soak $(@:deps-%=%)

clean:
	@$(S)/clean.sh

.PHONY: help tree refresh verify verify-releases kernel build-matrix user selftests check \
	user-ppc64le check-ppc64le test-scripts mm-tests mutations static soak series series-check \
	patch deb deb-tools deb-test record-stock demo bench bench-full \
	bench-report shell deps deps-bench deps-static clean
.NOTPARALLEL:
