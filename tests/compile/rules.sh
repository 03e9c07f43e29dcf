#!/usr/bin/env bash
# rules.sh ROOT: what every source file keeps to.
set -u
cd "$1" || exit 1
failed=0
complain() {
  echo "$1"
  failed=1
}
mapfile -t sources < <(find include src tests bench examples -type f \
  \( -name '*.hpp' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) -size +0 | sort)
mapfile -t headers < <(find include -name '*.hpp' | sort)

for file in "${sources[@]}"; do
  [ "$(head -n 1 "$file")" = "// SPDX-License-Identifier: Apache-2.0" ] ||
    complain "$file: its first line is not the SPDX line"
done
for file in "${sources[@]}"; do
  case $file in include/* | src/*) ;; *) continue ;; esac
  lines=$(wc -l <"$file")
  [ "$lines" -le 450 ] || complain "$file: has $lines lines, more than 450"
done

for file in "${headers[@]}"; do
  # A header means the same in every build: its own guard is the only macro of ours that it may read. Highway's
  # headers are included once an instruction set, so they have one.
  guard=
  case $file in include/ashlar/kernels/*) guard='ASHLAR_KERNELS_[A-Z0-9_]*_INL_HPP_' ;; esac
  found=$(grep -nE '^ *# *(if|ifdef|ifndef|elif|elifdef|elifndef)\b.*ASHLAR_' "$file")
  [ -z "$guard" ] || found=$(grep -vE "$guard" <<<"$found")
  [ -z "$found" ] || complain "$file reads a build macro: $found"
  # <name> without a dot or a slash is the standard library's.
  allowed='<[a-z_0-9]+>|"ashlar/[a-z_0-9/-]+\.hpp"'
  case $file in
    include/ashlar/kernels/*-inl.hpp) allowed+='|"hwy/[a-z_0-9/-]+\.h"|HWY_[A-Z_]+|<(immintrin|arm_neon)\.h>' ;;
    include/ashlar/bridge/*) continue ;;
    include/ashlar/cuda/*) continue ;;
  esac
  found=$(grep -nE '^ *# *include\b' "$file" | grep -vE "include +($allowed)")
  [ -z "$found" ] || complain "$file includes a header of somebody else: $found"
done

for file in include/ashlar/ops/*.hpp; do
  grep -q "\"${file#include/}\"" include/ashlar/ashlar.hpp ||
    complain "include/ashlar/ashlar.hpp does not include ${file#include/}"
done
[ $failed -eq 0 ] && echo "${#sources[@]} files keep to the rules"
exit $failed
