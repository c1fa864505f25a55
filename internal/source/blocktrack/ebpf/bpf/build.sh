#!/bin/sh
# Builds track.o from track.c, and writes beside it what it was made of. Needs
# clang and llvm-strip; no headers.
set -eu
cd "$(dirname "$0")"
out=${1:-track.o}
clang -target bpf -mcpu=v3 -O2 -g -Wall -Werror -ffile-prefix-map="$PWD"=. -c track.c -o "$out"
llvm-strip -g "$out" # its BTF stays
[ "$out" != track.o ] || {
	printf 'source %s\n' "$(sha256sum <track.c | cut -d' ' -f1)"
	printf 'compiler %s\n' "$(clang --version | head -n 1)"
} >track.o.made-of
