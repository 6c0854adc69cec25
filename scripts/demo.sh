#!/bin/sh
# make demo: replay a capture with a tunnel in it, show the incident, retrain, and say how to look further.
#
#     scripts/demo.sh PROGRAM [DIRECTORY]
#
# PROGRAM is dns-tunnel; DIRECTORY (data/demo) is made anew, and kept. Neither the user's settings nor .env are read,
# so that no message is sent and no other database is touched.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
program=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
capture=$here/tests/data/demo.pcap.gz
demo=${2:-$here/data/demo}

if [ -n "$(ls -A "$demo" 2>/dev/null)" ] && [ ! -e "$demo/.demo" ]; then
    echo "cannot use $demo: it is neither empty nor an earlier demo's" >&2
    exit 2
fi
rm -rf "$demo"
mkdir -p "$demo"
touch "$demo/.demo"
demo=$(cd "$demo" && pwd)
trap 'exit 130' INT TERM
cd "$demo"

short() {
    sed "s|$here/||g"
}

run() {
    printf '\n$ dns-tunnel %s\n' "$*" | short
    env -i PATH="$(dirname "$program"):$PATH" HOME="$demo" DATA_DIR=. LOG_LEVEL=error PYTHONPATH="${PYTHONPATH-}" "$program" "$@"
}

run replay "$capture" --store
# The capture is older than the usual week, and replays teach nothing unless they are asked for.
status=0
run retrain --days 3650 --replayed >.demo || status=$?
grep -v '^report:' .demo
[ "$status" -eq 0 ] || [ "$status" -eq 3 ]
short <<EOF

report:     $(find "$demo/reports" -name '*.html')
look at it: $program --data-dir $demo explain 10.53.0.11 tunnel.test
remove it:  rm -r $demo
EOF
