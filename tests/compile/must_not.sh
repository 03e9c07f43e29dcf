#!/usr/bin/env bash
# must_not.sh FILE COMPILER...: each case of FILE is refused, at the line marked "error: its name", and the file without
# any case compiles.
set -u
file=$1
shift
"$@" -fsyntax-only "$file" || { echo "the file itself does not compile"; exit 1; }
failed=0
for name in $(sed -n 's/^#ifdef \(.*\)/\1/p' "$file"); do
  line=$(grep -n "// error: $name\$" "$file" | cut -d: -f1)
  if output=$("$@" -fsyntax-only "-D$name" "$file" 2>&1); then
    echo "$name compiles"
    failed=1
  elif ! grep -q "$(basename "$file"):$line:[0-9]*: .*\(error\|required from here\|in instantiation of\)" <<<"$output"; then
    printf '%s is refused, but not at line %s:\n%s\n' "$name" "$line" "$output"
    failed=1
  else
    echo "$name: refused"
  fi
done
exit $failed
