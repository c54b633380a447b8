#!/bin/sh
# fuzz.sh runs every fuzz target for $FUZZTIME each (default 60s).
set -eu
grep -r --include='*_test.go' -E '^func Fuzz[A-Za-z0-9_]+\(' . |
	sed -E 's/^(.*)\/[^\/]+_test\.go:func (Fuzz[A-Za-z0-9_]+).*/\1 \2/' | sort -u |
	while read -r dir target; do
		echo "== $dir $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-60s}" -fuzzminimizetime 1s "$dir"
	done
