#!/usr/bin/env bash
# A Docker engine for the container tests, and images where none can be pulled.
#   engine.sh run COMMAND...  run a command with the engine that answers, else with one of its own, which ends after it; 77: none can be had
#   engine.sh up      the engine that answers, else one of its own from Debian packages (root, Debian); prints the file to source
#   engine.sh base    the base image: pulled, else a stand-in; prints what compose needs to name it
#   engine.sh images  those of PostgreSQL and the S3 server: pulled, else stand-ins; prints what compose needs to name them
#   engine.sh down    end the engine that `up` started
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
home=${ORCHARD_ENGINE_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/orchard-engine}
base=python:3.13-slim-trixie
install() { DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null; }

up() {
  mkdir -p "$home"
  if docker info >/dev/null 2>&1; then
    for name in DOCKER_HOST DOCKER_CONFIG PATH; do [ -z "${!name:-}" ] || printf 'export %s=%q\n' "$name" "${!name}"; done >"$home/env"
    echo "$home/env"; return
  fi
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "no Docker engine answers, and this is no root on Debian: none can be started" >&2; exit 77
  fi
  if [ ! -x "$home/root/usr/sbin/dockerd" ]; then
    { apt-get update -qq && install runc iptables ca-certificates; } || { echo "Debian's packages cannot be had" >&2; exit 77; }
    mkdir -p "$home"/{deb,lists/partial,cache/archives/partial}
    site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -v security | head -1)
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $site trixie main" >"$home/sources.list"
    own=(-o "Dir::Etc::sourcelist=$home/sources.list" -o "Dir::Etc::sourceparts=-" -o "Dir::State::lists=$home/lists"
         -o "Dir::Cache=$home/cache" -o APT::Sandbox::User=root)
    apt-get "${own[@]}" update -qq
    (cd "$home/deb" && apt-get "${own[@]}" download -qq docker.io docker-cli docker-compose docker-buildx containerd tini)
    for package in "$home"/deb/*.deb; do dpkg-deb -x "$package" "$home/root"; done
  fi
  mkdir -p "$home/config"
  ln -sfn "$home/root/usr/libexec/docker/cli-plugins" "$home/config/cli-plugins"
  echo "export DOCKER_HOST=unix://$home/docker.sock DOCKER_CONFIG=$home/config PATH=$home/root/usr/bin:$home/root/usr/sbin:\$PATH" >"$home/env"
  . "$home/env"
  # Alone on its line: a shell in the background would hold the caller's pipe.
  if ! docker info >/dev/null 2>&1; then
    setsid dockerd --data-root "$home/data" --exec-root "$home/exec" --pidfile "$home/dockerd.pid" \
      -H "unix://$home/docker.sock" >"$home/dockerd.log" 2>&1 </dev/null &
  fi
  for _ in $(seq 120); do docker info >/dev/null 2>&1 && { echo "$home/env"; return; }; sleep 0.5; done
  tail -20 "$home/dockerd.log" >&2; exit 77
}

there() { docker image inspect "$1" >/dev/null 2>&1 || timeout 60 docker pull -q "$1" >/dev/null 2>&1; }

images() {
  . "$home/env"
  if there postgres:17; then echo POSTGRES_IMAGE=postgres:17; else
    docker build -q -t orchard-test-postgres "$here/postgres" >/dev/null; echo POSTGRES_IMAGE=orchard-test-postgres; fi
  if there versity/versitygw:v1.8.0; then echo S3_IMAGE=versity/versitygw:v1.8.0; else
    if ! docker image inspect orchard-test-s3 >/dev/null 2>&1; then
      context=$(mktemp -d); cp "$here/s3/Dockerfile" "$context"
      GOBIN=$context go install -ldflags=-s github.com/versity/versitygw/cmd/versitygw@v1.8.0 >/dev/null || {
        echo "the S3 server can neither be pulled nor built: Go is needed" >&2; exit 1; }
      docker build -q -t orchard-test-s3 "$context" >/dev/null; rm -r "$context"
    fi
    echo S3_IMAGE=orchard-test-s3; fi
}

base() {
  . "$home/env"
  there "$base" || base_stand_in
  echo "BASE_IMAGE=$base"
}

# The published image is Python on Debian slim; this is Debian's own Python, with this machine's settings of pip and uv.
base_stand_in() {
  command -v mmdebstrap >/dev/null || { apt-get update -qq; install mmdebstrap; }
  context=$(mktemp -d)
  site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -v security | head -1)
  # Like Debian slim, without manuals and translations.
  mmdebstrap --quiet --variant=minbase --include=ca-certificates,python3,python3-venv,python3-pip,netbase,tzdata \
    --aptopt='Acquire::Languages "none"' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' trixie "$context/root.tar" "$site"
  cp /etc/ssl/certs/ca-certificates.crt "$context/"
  cp /etc/pip.conf "$context/" 2>/dev/null || : >"$context/pip.conf"
  echo 'system-certs = true' >"$context/uv.toml"
  cat >"$context/Dockerfile" <<'END'
FROM scratch
ADD root.tar /
COPY ca-certificates.crt /etc/ssl/certs/
COPY pip.conf /etc/pip.conf
COPY uv.toml /etc/uv/uv.toml
RUN rm -f /usr/lib/python3.*/EXTERNALLY-MANAGED; ln -sf /usr/bin/python3 /usr/local/bin/python; ln -sf /usr/bin/python3 /usr/local/bin/python3; ln -sf /usr/bin/pip3 /usr/local/bin/pip
ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
LABEL stand-in="made of Debian packages, not the published image"
CMD ["python3"]
END
  docker build -q -t "$base" "$context" >/dev/null
  rm -r "$context"
}

run() {
  local status=0 was_up=yes
  docker info >/dev/null 2>&1 || { [ -f "$home/env" ] && (. "$home/env" && docker info) >/dev/null 2>&1; } || was_up=no
  up >/dev/null
  . "$home/env"
  "$@" || status=$?
  [ $was_up = yes ] || down
  return $status
}

down() {
  [ -f "$home/dockerd.pid" ] || return 0
  kill "$(cat "$home/dockerd.pid")"
  while [ -f "$home/dockerd.pid" ]; do sleep 0.2; done
  ip link del docker0 2>/dev/null || true
}

case ${1:-} in run) shift; run "$@" ;; up|base|images|down) "$1" ;; *) sed -n 2,8p "$0"; exit 2 ;; esac
