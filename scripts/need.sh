#!/bin/sh
# need.sh FILE[>=VERSION]=PACKAGE[,PACKAGE]... installs the Debian packages whose FILE is
# missing, or older than VERSION. FILE is a path or a command; one with a version says its
# own when asked `FILE version`.
set -eu
missing=
for pair in "$@"; do
	file=${pair%=*} packages=$(echo "${pair##*=}" | tr , ' ')
	case $file in
	*'>='*)
		least=${file#*>=} file=${file%>=*}
		have=$("$file" version 2>/dev/null | sed 's/^[^0-9]*\([0-9.]*\).*/\1/')
		[ -n "$have" ] && [ "$(printf '%s\n' "$least" "$have" | sort -V | head -n 1)" = "$least" ] && continue
		;;
	/*) [ -e "$file" ] && continue ;;
	*) command -v "$file" >/dev/null 2>&1 && continue ;;
	esac
	missing="$missing $packages"
done
[ -n "$missing" ] || exit 0
echo "installing$missing"
run=
[ "$(id -u)" = 0 ] || run=sudo
export DEBIAN_FRONTEND=noninteractive
# Word splitting is wanted: $missing is a list. What an old list of packages cannot
# give, a new one may.
install() { $run apt-get install -y -qq --no-install-recommends $missing; }
case $* in *'>='*) $run apt-get update -qq ;; esac
install >/dev/null 2>&1 || {
	$run apt-get update -qq
	install >/dev/null
}
