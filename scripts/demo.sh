#!/bin/sh
# make demo: replay a capture with a tunnel in it, show the incident, retrain, and say where the report lies.
#
#     scripts/demo.sh PROGRAM [DIRECTORY]
#
# PROGRAM is dns-tunnel; in DIRECTORY (data/demo) only the report is left. Neither the user's settings nor .env are
# read, so that no message is sent and no other database is touched.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
program=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
capture=$here/tests/data/demo.pcap.gz
demo=${2:-$here/data/demo}

mkdir -p "$demo"
demo=$(cd "$demo" && pwd)
rm -rf "$demo/work" "$demo/reports"
mkdir "$demo/work"
trap 'rm -rf "$demo/work"' EXIT
trap 'exit 130' INT TERM
cd "$demo/work"

run() {
    printf '\n$ dns-tunnel %s\n' "$*" | sed "s|$here/||g"
    env -i PATH="$PATH" HOME="$demo/work" DATA_DIR=. LOG_LEVEL=error PYTHONPATH="${PYTHONPATH-}" "$program" "$@"
}

run replay "$capture" --store
# The capture is older than the usual week.
status=0
run retrain --days 3650 >retraining.txt || status=$?
grep -v '^report:' retraining.txt
mv reports "$demo/reports"
[ "$status" -eq 0 ] || [ "$status" -eq 3 ]
printf '\nreport: %s\n' "$(find "$demo/reports" -name '*.html' | sed "s|$here/||")"
