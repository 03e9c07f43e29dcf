#!/usr/bin/env bash
# headers.sh INCLUDE_DIR COMPILER...: every public header compiles on its own, included twice, without warnings.
set -u
include=$1
shift
check() {
  local header=$1
  shift
  printf '#include "%s"\n#include "%s"\n' "$header" "$header" |
    "$@" -fsyntax-only -Wall -Wextra -Wno-missing-field-initializers -Werror -x c++ - ||
    { echo "$header does not compile on its own"; exit 1; }
}
export -f check
cd "$include" || exit 1
find ashlar -name '*.hpp' -print0 | sort -z |
  xargs -0 -P "$(nproc)" -I{} bash -c 'check "$@"' check {} "$@" || exit 1
echo "$(find ashlar -name '*.hpp' | wc -l) headers compile on their own"
