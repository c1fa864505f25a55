#!/usr/bin/env bash
# Runs every fuzz test of the module for a while each, one after another.
#   scripts/fuzz.sh [DURATION]     default 10s
# An input that fails is written by Go under the package's testdata/fuzz; commit it.
set -euo pipefail
cd "$(dirname "$0")/.."
duration=${1:-10s}
failed=0 passed=0
for package in $(scripts/go list ./...); do
  dir=./${package#"$(scripts/go list -m)"/}
  grep -qs '^func Fuzz' "$dir"/*_test.go || continue
  for name in $(scripts/go test -list '^Fuzz' "$dir" | grep '^Fuzz'); do
    if scripts/go test -run '^$' -fuzz "^$name\$" -fuzztime "$duration" "$dir"; then
      passed=$((passed + 1))
    else
      failed=$((failed + 1))
      echo "fuzz: $dir $name failed" >&2
    fi
  done
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
