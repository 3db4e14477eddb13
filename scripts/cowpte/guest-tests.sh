#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Run test programs one after the other, in a guest:
#
#   guest-tests.sh RESULTS SECONDS PROGRAM...
#
# Leaves NAME.tap, NAME.err and NAME.status of each in the directory RESULTS.
# The limit of SECONDS is for each program. Always ends well: what the results
# mean is for the caller to say.
set -u

results=$1
limit=$2
shift 2

# As a distribution's administrator would set up a machine for mm tests.
echo 16 > /proc/sys/vm/nr_hugepages
ulimit -l unlimited
ulimit -c 0

for program; do
	name=${program##*/}
	echo "cowpte-guest: test $name" > /dev/kmsg
	# Beside the program, as kselftest does it.
	(cd "${program%/*}" && exec timeout -k 10 "$limit" "./$name") \
		> "$results/$name.tap" 2> "$results/$name.err"
	echo $? > "$results/$name.status"
done
exit 0
