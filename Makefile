# deviceca. `make run` serves a CA of your own, `make test` tests it, `make test-long` tests what takes
# servers of others and minutes.

HOME_DIR ?= ./deviceca-data
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS   = -s -w -X main.version=$(VERSION)
SOFTHSM   = softhsm2-util=softhsm2 /usr/lib/softhsm/libsofthsm2.so=libsofthsm2
COMPILER  = gcc=gcc /usr/include/stdlib.h=libc6-dev
# The other PKCS#11 modules of the tests: tpm2-pkcs11, with the resource manager that it needs over swtpm, and p11-kit-client.
MODULES   = p11-kit=p11-kit,p11-kit-modules /usr/share/p11-kit/modules/tpm2_pkcs11.module=libtpm2-pkcs11-1 dbus-daemon=dbus-daemon dbus-send=dbus-bin \
	/usr/sbin/tpm2-abrmd=tpm2-abrmd,libtss2-tcti-tabrmd0,libtss2-tcti-swtpm0

.PHONY: run build device test test-long unit interop interop-step race fuzz bench compose-test clean

run: build
	@scripts/need.sh $(SOFTHSM)
	@test -e $(HOME_DIR)/deviceca.yaml || bin/deviceca init --resume --home $(HOME_DIR)
	@exec bin/deviceca serve --home $(HOME_DIR)

build:
	@scripts/need.sh $(COMPILER)
	@go build -trimpath -ldflags "$(LDFLAGS)" -o bin/deviceca ./cmd/deviceca

# The client for devices: small, static, no cgo.
device:
	CGO_ENABLED=0 go build -tags nethttpomithttp2 -trimpath -ldflags "-s -w" -o bin/deviceca-device ./client/cmd/deviceca-device

test: need unit interop

.PHONY: need
# OpenSSL before 3.0.22 cannot read the authenticated attributes of CMS AuthEnvelopedData (RFC 5083).
need:
	@scripts/need.sh $(COMPILER) $(SOFTHSM) pkcs11-tool=opensc 'openssl>=3.0.22=openssl,libssl3' curl=curl pki=strongswan-pki \
		/usr/lib/ipsec/plugins/libstrongswan-curl.so=libstrongswan-extra-plugins \
		/usr/lib/ipsec/plugins/libstrongswan-openssl.so=libstrongswan-standard-plugins ocsptool=gnutls-bin nginx=nginx \
		swtpm=swtpm swtpm_setup=swtpm-tools tpm2_activatecredential=tpm2-tools \
		/usr/lib/$(shell uname -m)-linux-gnu/libtss2-tcti-swtpm.so.0=libtss2-tcti-swtpm0 jq=jq \
		lego=lego certbot=certbot uacme=uacme $(MODULES)

unit:
	go vet ./...
	go test -timeout 10m ./...

# Real third-party clients and servers against the built program.
interop: build
	go test -tags interop -timeout 10m -count 1 ./interop/...

# What relying parties make of it: web servers, brokers and so on, each with the configuration of its page in
# docs/relying-parties. `make test-long UPDATE=-update` writes the table there anew.
test-long: build
	@scripts/need.sh $(SOFTHSM) 'openssl>=3.0.22=openssl,libssl3' curl=curl pki=strongswan-pki \
		/usr/lib/ipsec/plugins/libstrongswan-curl.so=libstrongswan-extra-plugins \
		/usr/lib/ipsec/plugins/libstrongswan-openssl.so=libstrongswan-standard-plugins certtool=gnutls-bin nginx=nginx \
		haproxy=haproxy mosquitto=mosquitto freeradius=freeradius eapol_test=eapoltest /usr/bin/python3=python3
	go test -tags 'interop long' -run TestRelyingParties -timeout 10m -count 1 ./interop/... $(UPDATE)

# smallstep's step by itself: to build it takes longer than all the rest.
STEP_DIR = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/deviceca/step-v0.28.7
interop-step: build
	@scripts/need.sh $(SOFTHSM) openssl=openssl swtpm=swtpm swtpm_setup=swtpm-tools
	test -x "$(STEP_DIR)/step" || CGO_ENABLED=0 GOBIN="$(STEP_DIR)" go install github.com/smallstep/cli/cmd/step@v0.28.7
	PATH="$(STEP_DIR):$$PATH" go test -tags 'interop step' -run TestStep -timeout 10m -count 1 ./interop/

# Longer than CI has time for. The C of SQLite, made Go, is left as it is: watched, it takes half an hour.
race: need
	go test -race '-gcflags=modernc.org/...=-race=false' -timeout 30m ./...

# Longer than CI has time for: every fuzz target for $FUZZTIME each.
fuzz:
	scripts/fuzz.sh

bench: build
	@scripts/need.sh $(COMPILER) $(SOFTHSM)
	go run ./bench $(BENCHFLAGS)

compose-test:
	scripts/compose-test.sh

clean:
	rm -rf bin
