#!/bin/sh
# Install or upgrade this folder as a service of this host: sudo deploy/systemd/install.sh
# Each release lies in a folder of its own below /opt/dns-tunnel; the old one answers until the new one is compiled.
# Settings (/etc/dns-tunnel/env) and data (/var/lib/dns-tunnel) stay. Back: install.sh --back
# ROOT: a folder to install into, without starting anything, for packages and tests.
set -eu
root=${ROOT:-}
from=$(cd "$(dirname "$0")/../.." && pwd)
home=$root/opt/dns-tunnel
python=${PYTHON:-python3}
kept=2

fail() { echo "cannot install: $1" >&2; exit 1; }

switch() { # to a release, in one step
    ln -sfn "$1" "$home/current.new"
    mv -T "$home/current.new" "$home/current"
    [ -n "$root" ] || systemctl restart dns-tunnel.service
}

[ -n "$root" ] || [ "$(id -u)" = 0 ] || fail "root is needed; or set ROOT to a folder to install into"
[ -n "$root" ] || command -v systemctl >/dev/null || fail "this host has no systemd"

if [ "${1:-}" = --back ]; then
    now=$(readlink "$home/current" 2>/dev/null) || fail "nothing is installed"
    before=$(cd "$home" && ls -d 2* | grep -v "^$now\$" | tail -n 1) || true
    [ -n "$before" ] || fail "there is no release before $now"
    switch "$before"
    echo "back at $before, from $now"
    exit 0
fi
[ $# = 0 ] || fail "what is $1? Without a word it installs, --back goes back"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || fail "Python 3.11 or later is needed"

release=$(date -u +%Y%m%d-%H%M%S)
mkdir -p "$home/$release" "$root/etc/dns-tunnel" "$root/etc/systemd/system"
for each in agents scripts deploy docs README.md CHANGELOG.md pyproject.toml requirements.txt Makefile .env.example; do
    cp -R "$from/$each" "$home/$release/"
done
find "$home/$release" -name __pycache__ -prune -exec rm -rf {} +
if [ ! -e "$root/etc/dns-tunnel/env" ]; then
    (
        umask 077
        printf '%s\n' "# Settings of the service dns-tunnel: see /opt/dns-tunnel/current/.env.example." \
            LISTEN_HOST=0.0.0.0 LISTEN_PORT=53 >"$root/etc/dns-tunnel/env"
    )
fi
cp "$from/deploy/systemd/dns-tunnel.service" "$root/etc/systemd/system/dns-tunnel.service"
if [ -z "$root" ]; then
    getent passwd dns-tunnel >/dev/null ||
        useradd --system --home-dir /var/lib/dns-tunnel --shell /usr/sbin/nologin dns-tunnel
    make -C "$home/$release" install PYTHON="$python" || { rm -rf "${home:?}/$release"; fail "see above; the release before runs on"; }
    systemctl daemon-reload
    systemctl enable --quiet dns-tunnel.service
fi
switch "$release"
(cd "$home" && ls -d 2* | grep -v "^$release\$" | head -n "-$((kept - 1))" | while read -r old; do rm -rf "${home:?}/$old"; done)
echo "release $release is in place; settings: /etc/dns-tunnel/env"
[ -n "$root" ] || echo "the first admin's one-time link: journalctl -u dns-tunnel | grep /login/link/"
