#!/usr/bin/env bash
# build.sh PKGCONFIG_DIR SOURCE OUT_DIR IO COMPILER: compiles with what pkg-config says, and runs.
set -eu
export PKG_CONFIG_PATH=$1
mkdir -p "$3"
package=ashlar
define=
if [ "$4" = ON ]; then
  package=ashlar-io
  define=-DCONSUME_IO
fi
# shellcheck disable=SC2046
"$5" -std=c++20 -O2 $define "$2" $(pkg-config --static --cflags --libs $package) "-Wl,-rpath,$1/.." -o "$3/consume"
"$3/consume"
