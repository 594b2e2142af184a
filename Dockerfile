# The entrypoint of the Multus CNI DaemonSet, with the multus binary that it installs.
# Build it with `make image`; docs/image.md says why it is built this way.

# The release of Multus whose binary the image carries.
ARG MULTUS_VERSION=v4.3.1
# The digests behind the two tags (sha256:...), which `make image` takes from images/Dockerfile. Empty: the tag decides.
ARG MULTUS_DIGEST=
ARG DEBIAN_DIGEST=

FROM ghcr.io/k8snetworkplumbingwg/multus-cni:${MULTUS_VERSION}${MULTUS_DIGEST:+@${MULTUS_DIGEST}} AS multus

# The licenses of the Go modules in the multus binary, as `make licenses` has collected them. Its image has none of them; a
# release gives them as the build context of this name.
FROM scratch AS licenses

FROM docker.io/library/debian:trixie-slim${DEBIAN_DIGEST:+@${DEBIAN_DIGEST}} AS build
# hadolint ignore=DL3008 # Debian's archive keeps only the newest build of a package: a pin would break within weeks.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
# Two environments, so that pip is in the one that stays behind. Both secrets are optional: a pip configuration for a
# mirror, and a CA bundle for a network that intercepts TLS.
WORKDIR /src
COPY requirements.txt requirements-build.txt ./
RUN --mount=type=secret,id=pip-config --mount=type=secret,id=ca-certificates \
    if [ -s /run/secrets/ca-certificates ]; then export PIP_CERT=/run/secrets/ca-certificates; fi \
    && export PIP_CONFIG_FILE=/run/secrets/pip-config \
    && python3 -m venv /opt/build \
    && python3 -m venv --without-pip /opt/multus-entrypoint \
    # Wheels only: where one is missing for a platform, say so instead of looking for a compiler.
    && /opt/build/bin/pip install --no-cache-dir --only-binary :all: --require-hashes -r requirements-build.txt \
    && /opt/build/bin/pip --python /opt/multus-entrypoint install --no-cache-dir --no-compile \
        --only-binary :all: --no-deps --require-hashes -r requirements.txt \
    # Half of the kubernetes client is its other, asynchronous self, which nothing imports: 64 MB of the image.
    && rm -r /opt/multus-entrypoint/lib/python3.13/site-packages/kubernetes/aio
COPY pyproject.toml README.md LICENSE ./
COPY entrypoint entrypoint
# The package is built by the locked flit_core; nothing is fetched here. Byte code is found valid by being there: a
# time stamp in it would differ with every build, and would not match after an image tool has set the files' times.
# SOURCE_DATE_EPOCH is the first second that a wheel can hold; it dates nothing but the wheel, which stays behind.
RUN SOURCE_DATE_EPOCH=315532800 \
    /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /dist . \
    && /opt/build/bin/pip --python /opt/multus-entrypoint install --no-cache-dir --no-compile --no-deps --no-index \
        /dist/*.whl \
    && /opt/multus-entrypoint/bin/python3 -m compileall -q -f --invalidation-mode unchecked-hash \
        /opt/multus-entrypoint/lib

FROM docker.io/library/debian:trixie-slim${DEBIAN_DIGEST:+@${DEBIAN_DIGEST}}
# The standard library is compiled anew for the reason above: Debian's own byte code holds time stamps, and once they do
# not match, every start compiles what it imports.
# The names in / and beside the binary are those of the images of Multus 3.9 and 4.3, so that their DaemonSets need another
# image and nothing else; the program looks at the name that it is called by.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 \
    && python3 -m compileall -q -f --invalidation-mode unchecked-hash /usr/lib/python3 /usr/lib/python3.13 \
    && rm -rf /var/lib/apt/lists /var/cache/apt /var/cache/debconf /var/cache/ldconfig /var/log/apt /var/log/dpkg.log \
        /var/log/alternatives.log /var/lib/dpkg/*-old \
    && mkdir -p /usr/src/multus-cni/bin \
    && for name in /usr/local/bin/multus-entrypoint \
           /entrypoint.sh /usr/src/multus-cni/bin/entrypoint.sh \
           /thin_entrypoint /usr/src/multus-cni/bin/thin_entrypoint \
           /install_multus /usr/src/multus-cni/bin/install_multus; do \
           ln -s /opt/multus-entrypoint/bin/multus-entrypoint "$name"; \
       done
COPY --from=build /opt/multus-entrypoint /opt/multus-entrypoint
# The glob is for releases of Multus without passthru: a pattern may match nothing, a name may not.
COPY --from=multus /usr/src/multus-cni/bin/multus /usr/src/multus-cni/bin/passth[r]u /usr/src/multus-cni/bin/
COPY images/70-multus.conf /usr/src/multus-cni/images/70-multus.conf
# Multus has the license of this project, and it belongs beside the binary.
COPY LICENSE /usr/src/multus-cni/LICENSE
COPY --from=licenses / /usr/src/multus-cni/licenses/
# For the script in MicroShift's DaemonSet; Debian's package of it brings systemd along.
COPY images/uuidgen /usr/local/bin/uuidgen

# Again, because an ARG ends with its stage.
ARG MULTUS_VERSION=v4.3.1
ARG DEBIAN_DIGEST=
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="multus-entrypoint" \
      org.opencontainers.image.description="Installs Multus CNI on a Kubernetes node and keeps it true" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="docker.io/library/debian:trixie-slim" \
      org.opencontainers.image.base.digest="${DEBIAN_DIGEST}" \
      io.multus-entrypoint.multus-version="${MULTUS_VERSION}"
# So that the program can say which Multus it installs.
ENV MULTUS_VERSION="${MULTUS_VERSION}"

ENTRYPOINT ["/usr/local/bin/multus-entrypoint"]
