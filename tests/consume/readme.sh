#!/usr/bin/env bash
# readme.sh README PKGCONFIG_DIR OUT_DIR COMPILER: compiles and runs the README's C++ code with the installed package.
set -eu
mkdir -p "$3"
sed -n '/^```cpp$/,/^```$/{/^```/!p}' "$1" >"$3/readme.cpp"
grep -q 'int main' "$3/readme.cpp"
bash "$(dirname "$0")/pkg_config/build.sh" "$2" "$3/readme.cpp" "$3" OFF "$4"
