#!/bin/sh
# Install the weekly retraining as a cron line. Safe to run twice.
#
#   scripts/setup_weekly_training.sh            install (or renew) the line
#   scripts/setup_weekly_training.sh --print    show the line, change nothing
#   scripts/setup_weekly_training.sh --remove   take the line away; every other line stays
#
# The schedule is RETRAIN_SCHEDULE (environment, then .env; default: Sundays at 02:00). Cron reads it in the
# system's time zone. It finds out where it runs: in a container, on a host that runs the compose project, or on
# a plain host with .venv; RETRAIN_WHERE=container|compose|venv decides otherwise.
set -eu

MARK='# dns-tunnel-detector: weekly retraining'
DIR=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)

fail() {
    echo "cannot set up weekly training: $1" >&2
    exit "${2:-1}"
}

# The value of RETRAIN_SCHEDULE: five fields of crontab(5) and nothing else.
schedule() {
    value=${RETRAIN_SCHEDULE:-}
    if [ -z "$value" ] && [ -r "$DIR/.env" ]; then
        value=$(sed -n "s/^[[:space:]]*RETRAIN_SCHEDULE[[:space:]]*=[[:space:]]*//p" "$DIR/.env" | tail -n 1 |
            sed "s/[[:space:]]*\$//; s/^\"\(.*\)\"\$/\1/; s/^'\(.*\)'\$/\1/")
    fi
    value=${value:-0 2 * * sun}
    case $value in
    *"
"*) fail "RETRAIN_SCHEDULE has more than one line" 2 ;;
    esac
    printf '%s\n' "$value" | grep -Eq '^[0-9A-Za-z*/,-]+([ 	]+[0-9A-Za-z*/,-]+){4}$' ||
        fail "RETRAIN_SCHEDULE='$value' is no cron expression of five fields" 2
    printf '%s\n' "$value"
}

where() {
    if [ -n "${RETRAIN_WHERE:-}" ]; then
        echo "$RETRAIN_WHERE"
    elif [ -f "$DIR/docker-compose.yml" ] && [ -n "$(compose_running)" ]; then
        echo compose
    elif [ -e /.dockerenv ] || [ -e /run/.containerenv ]; then
        echo container
    elif [ -x "$DIR/.venv/bin/python" ]; then
        echo venv
    elif command -v docker >/dev/null 2>&1; then
        echo compose
    else
        fail "neither Docker nor .venv is here; run 'make install' first"
    fi
}

compose_running() {
    (cd "$DIR" && docker compose ps -q api 2>/dev/null) || true
}

# cron's own PATH is /usr/bin:/bin.
docker_program() {
    found=$(command -v docker || echo docker)
    case $found in
    /usr/bin/docker | /bin/docker) echo docker ;;
    *) echo "$found" ;;
    esac
}

# A word for the shell that cron starts; in a crontab a % must be escaped.
quoted() {
    printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")" | sed 's/%/\\%/g'
}

line() {
    when=$(schedule)
    log=$(quoted "$DIR/logs/cron.log")
    case $1 in
    container) command="$(quoted "$DIR/scripts/setup_weekly_training.sh") --run >>$log 2>&1" ;;
    compose) command="cd $(quoted "$DIR") && $(docker_program) compose exec -T api python scripts/automated_retraining.py >>$log 2>&1" ;;
    venv) command="cd $(quoted "$DIR") && .venv/bin/python scripts/automated_retraining.py >>$log 2>&1" ;;
    *) fail "RETRAIN_WHERE='$1' is none of container, compose, venv" 2 ;;
    esac
    printf '%s %s %s\n' "$when" "$command" "$MARK"
}

# The crontab without our line. A crontab that cannot be read is never overwritten.
others() {
    errors=$(mktemp)
    if current=$(crontab -l 2>"$errors"); then
        rm -f "$errors"
    elif grep -qi 'no crontab' "$errors"; then
        rm -f "$errors"
        return 0
    else
        reason=$(head -n 1 "$errors")
        rm -f "$errors"
        fail "the crontab cannot be read: $reason"
    fi
    printf '%s' "$current" | grep -vF "$MARK" || true
}

need_cron() {
    if command -v crontab >/dev/null 2>&1; then
        # The image has a program of that name that only shows what the service scheduler does.
        [ "$place" = container ] && crontab -l 2>/dev/null | grep -q '^# kept by the service scheduler' || return 0
    fi
    if [ "$place" = container ]; then
        when=$(schedule)
        echo "nothing to install: this container has no cron, and the compose service 'scheduler' already retrains on '$when'; to use cron instead, stop that service and run this script on the host"
        exit 0
    fi
    fail "there is no crontab program; install cron, or run 'dns-tunnel schedule', which needs none"
}

# What the line inside a container calls: cron hands down no environment, so take that of the first process.
run() {
    first=${RETRAIN_ENVIRON:-/proc/1/environ}
    if [ -r "$first" ]; then
        exec xargs -0 -a "$first" sh -c 'cd "$0" && exec env "$@" python scripts/automated_retraining.py' "$DIR"
    fi
    cd "$DIR" && exec python scripts/automated_retraining.py
}

case ${1:-} in
--run) run ;;
--print)
    place=$(where)
    line "$place"
    ;;
--remove)
    place=$(where)
    need_cron
    kept=$(others)
    if ! crontab -l 2>/dev/null | grep -qF "$MARK"; then
        echo "nothing to remove: the crontab has no such line"
    elif [ -z "$kept" ]; then
        crontab -r
        echo "removed: cron no longer retrains"
    else
        printf '%s\n' "$kept" | crontab -
        echo "removed: cron no longer retrains"
    fi
    ;;
'')
    place=$(where)
    need_cron
    new=$(line "$place")
    kept=$(others)
    mkdir -p "$DIR/logs"
    { [ -z "$kept" ] || printf '%s\n' "$kept"; printf '%s\n' "$new"; } | crontab -
    echo "installed: $new"
    ;;
*) fail "unknown argument '$1'; there are --print and --remove" 2 ;;
esac
