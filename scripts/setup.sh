#!/bin/bash
# Installs what building needs on Debian 12 (and relatives with apt): only what is missing, and only
# as root. Usage: scripts/setup.sh [build|servers|lint|fuzz]...
set -euo pipefail

build=(g++ ccache cmake ninja-build pkg-config libssl-dev libzstd-dev libxxhash-dev
       libcurl4-openssl-dev libpugixml-dev libmicrohttpd-dev nlohmann-json3-dev libcli11-dev
       libgtest-dev python3-dev python3-venv ca-certificates)
servers=(radosgw ceph-mon ceph-osd ceph-common python3-swift nginx-light)
lint=(clang-format-14 clang-tidy-14)
fuzz=(clang-14 libclang-rt-14-dev)

wanted=()
for part in "${@:-build}"; do
  case $part in
    build) wanted+=("${build[@]}") ;;
    servers) wanted+=("${servers[@]}") ;;
    lint) wanted+=("${lint[@]}") ;;
    fuzz) wanted+=("${fuzz[@]}") ;;
    *) echo "setup: no part '$part' (build, servers, lint, fuzz)" >&2; exit 2 ;;
  esac
done

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "setup: this is not a Debian system, so nothing was installed or checked." >&2
  echo "setup: docs/dependencies.md lists what is needed; by Debian's names: ${wanted[*]}" >&2
  exit 0
fi

installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

missing=()
for package in "${wanted[@]}"; do
  installed "$package" || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ]; then
  echo "setup: these packages are missing: ${missing[*]}" >&2
  echo "setup: as root, run:  apt-get install --no-install-recommends ${missing[*]}" >&2
  exit 1
fi

echo "setup: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
install=(apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 "${missing[@]}")
# Packages of servers would start them; this is how Debian asks whether they may. The tests start
# servers of their own, so none should run for having been installed here.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
fi
# The package lists of a fresh container are empty or old.
apt-get update -qq && "${install[@]}" >/dev/null
