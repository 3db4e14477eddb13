# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Completion of cowpte(1) for bash.
_cowpte()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	local command=${COMP_WORDS[1]} words

	if [ "$COMP_CWORD" -eq 1 ]; then
		words="run status on off --help --version"
	elif [ "$command" = run ]; then
		if [[ $cur != -* ]]; then
			# the command's own words, as if it stood alone
			if declare -F _command_offset > /dev/null; then
				local i=2

				while [[ ${COMP_WORDS[i]} = -* && $i -lt $COMP_CWORD ]]; do
					i=$((i + 1))
				done
				_command_offset "$i"
			else
				mapfile -t COMPREPLY < <(compgen -c -- "$cur")
			fi
			return
		fi
		words="--off --help --"
	else
		case $prev in
		-w|--watch) return ;;
		esac
		if [[ $cur = -* ]]; then
			words="--pid --help"
			[ "$command" != status ] || words+=" --all --json --verbose --watch"
		else
			words=$(cd /proc && echo [0-9]*)
		fi
	fi
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -F _cowpte cowpte
