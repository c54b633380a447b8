# The server with SoftHSM2. docs/container.md says how to run it.

FROM golang:1.26-trixie AS build
WORKDIR /src
# Empty is Go's default. A proxy of your own: --build-arg GOPROXY=URL
ARG GOPROXY=
# Modules first: a change of the sources does not fetch them again.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN make build VERSION="$VERSION"

# The same Debian release as above: the program is linked with its C library.
FROM debian:trixie-slim
RUN apt-get update \
	&& apt-get install -y --no-install-recommends libsofthsm2 \
	&& rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/apt /var/log/dpkg.log \
	&& useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/deviceca --shell /usr/sbin/nologin deviceca \
	# New volumes take owner and mode of the directory that they are mounted on.
	&& install -d -o deviceca -g deviceca -m 0700 /var/lib/deviceca /backup
COPY --from=build /src/bin/deviceca /usr/local/bin/deviceca

# A number, so that a check for non-root (runAsNonRoot) can see that it is not 0.
USER 10001:10001
WORKDIR /var/lib/deviceca
VOLUME /var/lib/deviceca
# The home is a directory in the volume, not the volume: so one can be put aside and another restored.
# Settings by environment rather than by flags: so every command run in the container sees them.
ENV DEVICECA_HOME=/var/lib/deviceca/ca \
	DEVICECA_LISTEN_HTTPS=:8443 \
	DEVICECA_LISTEN_HTTP=:8080 \
	DEVICECA_LISTEN_METRICS=:9464
EXPOSE 8443 8080 9464
# Over the socket in the home: needs no HTTP client, and no port or certificate. Unhealthy means that
# the token or the ledger does not answer; both recover without a restart.
HEALTHCHECK --interval=10s --timeout=8s --start-period=30s --retries=3 CMD ["deviceca", "status"]
ENTRYPOINT ["deviceca"]
CMD ["serve"]
