#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Remove what can be built again. build/linux may hold edits, so it stays, as
# do downloaded packages.
set -euo pipefail
# shellcheck source=scripts/cowpte/common.sh
. "$(dirname "$0")/common.sh"

[ -d "$BUILD" ] || exit 0
cd "$BUILD"
rm -rf perf debug stock-perf stock-debug linux-stock linux-stock.tmp linux-stock.stamp \
	linux.tmp headers user selftests mm mm-tests check bench demo run \
	mutant mutations kasan kcsan stock-kasan stock-kcsan soak static \
	test-scripts deps.log \
	.sync.* .empty.git .kvm-verdicts
say "removed what was built; left: $(find . -mindepth 1 -maxdepth 1 ! -name '.*' -printf '%f ')"
