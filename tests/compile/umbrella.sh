#!/usr/bin/env bash
# umbrella.sh COMPILER...: <ashlar/ashlar.hpp> stays light. The bound is on the preprocessed size, which does not depend
# on the machine's load; 50,000 lines are about half a second. The time is printed, not judged.
set -eu
lines=$(echo '#include <ashlar/ashlar.hpp>' | "$@" -E -P -x c++ - | wc -l)
TIMEFORMAT='%U %S'
median=$(for _ in 1 2 3 4 5; do
  { time echo '#include <ashlar/ashlar.hpp>' | "$@" -c -x c++ - -o /dev/null; } 2>&1
done | awk '{print $1 + $2}' | sort -n | sed -n 3p)
echo "<ashlar/ashlar.hpp>: $lines lines after the preprocessor (at most 50000), $median s of processor time"
[ "$lines" -le 50000 ]
