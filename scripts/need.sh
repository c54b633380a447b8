#!/bin/sh
# need.sh FILE=PACKAGE... installs the Debian packages whose FILE is missing. FILE is
# a path or a command.
set -eu
missing=
for pair in "$@"; do
	file=${pair%%=*} package=${pair#*=}
	case $file in
	/*) [ -e "$file" ] && continue ;;
	*) command -v "$file" >/dev/null 2>&1 && continue ;;
	esac
	missing="$missing $package"
done
[ -n "$missing" ] || exit 0
echo "installing$missing"
run=
[ "$(id -u)" = 0 ] || run=sudo
export DEBIAN_FRONTEND=noninteractive
# Word splitting is wanted: $missing is a list.
$run apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1 || {
	$run apt-get update -qq
	$run apt-get install -y -qq --no-install-recommends $missing >/dev/null
}
