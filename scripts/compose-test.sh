#!/bin/bash
# compose-test.sh brings docker-compose.yml up as a user would, and enrols a device
# over its published port, before and after a restart and after a restore.
#
# No image registry is needed: base images that the engine does not have are made here
# from Debian packages and this machine's Go, under the names that the Dockerfile says.
# Images that are there already are used and kept, with the engine's build cache on top of
# them. Everything else that was made here is removed at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "== $*"; }
die() { echo "compose-test: $*" >&2; exit 1; }

command -v docker >/dev/null || die "there is no docker command; install Docker and start its engine"
timeout 20 docker version --format '{{.Server.Version}}' >/dev/null 2>&1 ||
	die "the Docker engine does not answer (docker version); start it, or name it with DOCKER_HOST"
if docker compose version >/dev/null 2>&1; then
	compose_command=(docker compose)
elif command -v docker-compose >/dev/null; then
	compose_command=(docker-compose)
else
	die "there is neither docker compose nor docker-compose (1.29 or later)"
fi
as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo)

project=deviceca-compose-test-$$
temp=$(mktemp -d)
stand_ins=()

# Nothing of the user's settings: neither the environment, nor .env, nor an override file.
while read -r name; do unset "$name"; done < <(compgen -e | grep '^DEVICECA_' || true)
: >"$temp/env"
export DEVICECA_IMAGE=$project DEVICECA_VERSION=compose-test
export DEVICECA_URL=http://ca.test:8080 DEVICECA_TLS_NAMES=ca.test
export DEVICECA_PORT_HTTPS=127.0.0.1:0 DEVICECA_PORT_HTTP=127.0.0.1:0 # 0: any that is free
compose() {
	timeout "${limit:-120}" "${compose_command[@]}" --env-file "$temp/env" -p "$project" -f docker-compose.yml "$@" </dev/null
}

exists() { docker image inspect "$1" >/dev/null 2>&1; }
layers() { docker image inspect -f '{{range .RootFS.Layers}}{{.}} {{end}}' "$1" 2>/dev/null || true; }

cleanup() {
	status=$?
	trap '' INT TERM
	set +e
	[ $status = 0 ] || compose logs --tail 40
	say "cleaning up"
	compose down --volumes --remove-orphans --timeout 10 >/dev/null 2>&1
	exists "$project" && docker image rm "$project" >/dev/null
	for image in "${stand_ins[@]}"; do
		exists "$image" || continue
		# What the build left without a name on top of a stand-in can be of use to nobody else.
		top=$(layers "$image" | awk '{print $NF}')
		for id in $(docker image ls -q --filter dangling=true --no-trunc); do
			[[ -n $top && $(layers "$id") == *"$top"* ]] && docker image rm "$id" >/dev/null
		done
		docker image rm "$image" >/dev/null
	done
	mountpoint -q "$temp/root/proc" && "${as_root[@]}" umount "$temp/root/proc" # of an interrupted debootstrap
	"${as_root[@]}" rm -rf --one-file-system "$temp"
	exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# debian_root RELEASE makes $temp/root: the base system of that release.
debian_root() {
	[ -d "$temp/root" ] && return
	scripts/need.sh debootstrap=debootstrap /usr/share/keyrings/debian-archive-keyring.gpg=debian-archive-keyring
	timeout 900 "${as_root[@]}" debootstrap --variant=minbase "$1" "$temp/root" >"$temp/log" 2>&1 || {
		tail -20 "$temp/log"
		die "debootstrap failed"
	}
}

# import NAME CHANGE makes an image of $temp/root, as slim as Debian's. One import and
# no Dockerfile, for where the engine's storage driver makes each step slow.
import() {
	stand_ins=("$1" "${stand_ins[@]}")
	"${as_root[@]}" tar -C "$temp/root" -c --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' \
		--exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' . | docker import --change "$2" - "$1" >/dev/null
}

# debian_stand_in NAME: the release is in the tag.
debian_stand_in() {
	say "stand-in for $1"
	debian_root "$release"
	import "$1" "CMD bash"
}

# go_stand_in NAME: this machine's Go, a C compiler, and the modules of go.mod.
go_stand_in() {
	say "stand-in for $1"
	debian_root "$release"
	timeout 600 "${as_root[@]}" chroot "$temp/root" sh -c 'apt-get update && apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev make' >"$temp/log" 2>&1 </dev/null || {
		tail -20 "$temp/log"
		die "the C compiler could not be installed"
	}
	local cache proxy
	cache=$(go env GOMODCACHE) proxy=$(go env GOPROXY)
	"${as_root[@]}" mkdir -p "$temp/root/usr/local/go" "$temp/root/go/pkg"
	tar -C "$(go env GOROOT)" -ch --exclude=./test --exclude=./api --exclude=./doc . | "${as_root[@]}" tar -C "$temp/root/usr/local/go" -x --no-same-owner
	GOFLAGS=-modcacherw GOMODCACHE=$temp/mod GOPROXY="file://$cache/cache/download,$proxy" timeout 600 go mod download
	"${as_root[@]}" mv "$temp/mod" "$temp/root/go/pkg/mod"
	import "$1" "ENV GOPATH=/go GOTOOLCHAIN=local PATH=/go/bin:/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

builder=$(sed -n 's/^FROM \([^ ]*\) AS build$/\1/p' Dockerfile)
runtime=$(sed -n 's/^FROM \([^ ]*\)$/\1/p' Dockerfile)
[[ -n $builder && -n $runtime ]] || die "the FROM lines of the Dockerfile are not what this script knows"
release=${runtime##*:} release=${release%-slim}
# In this order: the second adds to the root file system of the first.
exists "$runtime" || debian_stand_in "$runtime"
exists "$builder" || go_stand_in "$builder"

say "building the image"
limit=1500 compose build >"$temp/log" 2>&1 || {
	tail -40 "$temp/log"
	die "the build failed"
}
CGO_ENABLED=0 go build -trimpath -o "$temp/deviceca-device" ./client/cmd/deviceca-device
say "image: $(docker image inspect -f '{{.Size}}' "$project" | numfmt --to=iec-i --suffix=B) (base: $(docker image inspect -f '{{.Size}}' "$runtime" | numfmt --to=iec-i --suffix=B))"

in_server() { compose exec -T deviceca "$@"; }

# up starts the stack, waits until it is healthy, and learns where it is published.
up() {
	compose up -d >"$temp/log" 2>&1 || {
		cat "$temp/log"
		die "up failed"
	}
	container=$(compose ps -q deviceca)
	for ((i = 0; ; i++)); do
		health=$(docker inspect -f '{{.State.Health.Status}}' "$container")
		[ "$health" = healthy ] && break
		[ $i -lt 90 ] || die "the server is $health after $i s: $(docker inspect -f '{{json .State.Health.Log}}' "$container")"
		sleep 1
	done
	https=localhost:$(compose port deviceca 8443 | sed 's/.*://')
	http=127.0.0.1:$(compose port deviceca 8080 | sed 's/.*://')
	curl -fsS --max-time 10 "http://$http/readyz" >/dev/null
	say "healthy after $i s at https://$https"
}

# enroll [FLAG...] runs the device's program on this host; serial is what it has then.
enroll() {
	timeout 60 "$temp/deviceca-device" enroll -server "https://$https" -roots "$temp/root.crt" -id lamp-1 -dir "$temp/lamp-1" "$@" | sed -n 1p
	openssl verify -CAfile "$temp/root.crt" -untrusted "$temp/lamp-1/chain.pem" "$temp/lamp-1/cert.pem" >/dev/null
	local before=${serial:-}
	serial=$(openssl x509 -in "$temp/lamp-1/cert.pem" -noout -serial)
	[ "$serial" != "$before" ] || die "the certificate is the same as before"
	# Not grep -q alone: it would end the pipe early.
	openssl x509 -in "$temp/lamp-1/cert.pem" -noout -text | grep "URI:$DEVICECA_URL/" >/dev/null || die "the certificate does not point to $DEVICECA_URL"
}

# certificates N: so many certificates of the device are in the ledger.
certificates() {
	local have
	have=$(in_server deviceca cert list --device lamp-1 --json | grep -c '"serial"' || true)
	[ "$have" = "$1" ] || die "the ledger has $have certificates of the device, not $1"
	in_server deviceca audit verify >/dev/null
}

# fact FILE: a value of /proc/1/status in the container, where the kernel says what holds.
fact() { in_server sed -n "s/^$1:[[:space:]]*\([^[:space:]]*\).*/\1/p" /proc/1/status; }

expect() { [ "$2" = "$3" ] || die "$1: \"$2\", not \"$3\""; }

say "first start"
up
in_server cat ca/root.crt >"$temp/root.crt"
grant=$(in_server deviceca device add --id lamp-1 --level software --json 2>/dev/null)
field() { sed -n "s/^ *\"$1\": *\"\([^\"]*\)\".*/\1/p" <<<"$grant"; }
DEVICECA_SECRET=$(field secret) enroll -reference "$(field reference)"
certificates 1

say "confinement"
expect "user" "$(fact Uid)" 10001
expect "group" "$(fact Gid)" 10001
expect "effective capabilities" "$(fact CapEff)" 0000000000000000
expect "bounding set" "$(fact CapBnd)" 0000000000000000
expect "NoNewPrivs" "$(fact NoNewPrivs)" 1
expect "read-only root" "$(in_server sed -n 's/^[^ ]* \/ [^ ]* \(r[ow]\)[, ].*/\1/p' /proc/mounts)" ro
in_server sh -c 'touch /usr/local/bin/x || touch /etc/x || touch /x' 2>/dev/null && die "the root file system can be written to"
in_server sh -c 'touch /tmp/x && rm /tmp/x' || die "/tmp cannot be written to"
expect "mode of the home" "$(in_server stat -c %a,%u ca)" 700,10001
expect "published" "$(docker inspect -f '{{range $p, $b := .NetworkSettings.Ports}}{{if $b}}{{$p}} {{end}}{{end}}' "$container")" "8080/tcp 8443/tcp "

say "restart: down, and up on the same volumes"
started=$SECONDS
compose down >"$temp/log" 2>&1 || { cat "$temp/log"; die "down failed"; }
[ $((SECONDS - started)) -lt 28 ] || die "the server did not stop by itself"
up
in_server cat ca/root.crt | cmp - "$temp/root.crt" || die "init made another CA"
certificates 1
enroll -renew # with the certificate: no secret is given
certificates 2

say "backup and restore"
in_server deviceca backup /backup/one
compose stop deviceca >"$temp/log" 2>&1
compose run --rm --no-deps -T --entrypoint sh init -c 'mv ca ca.old && deviceca restore --home "$DEVICECA_HOME" --from /backup/one && deviceca recover --home "$DEVICECA_HOME" --acknowledge "the server was stopped right after the backup"' 2>"$temp/log" ||
	{ cat "$temp/log"; die "the restore failed"; }
up
certificates 2
enroll -renew
certificates 3

say "passed in $SECONDS s with ${compose_command[*]} $("${compose_command[@]}" version --short)"
