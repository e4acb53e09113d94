# syntax=docker/dockerfile:1
#
# The gateway with its embedded recognizer, as one unprivileged user.
#
#   docker build --build-arg REVISION="$(git rev-parse HEAD)" -t edgescribe .
#   docker run --read-only --tmpfs /tmp -v edgescribe-data:/data -p 8080:8080 \
#       -e EDGESCRIBE_API_KEYS=KEY:ingest+read edgescribe

ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
# The release of the base image decides the versions; its archive keeps no older ones to pin.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential libopus-dev pkg-config tini \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /tools \
    && /tools/bin/python -m pip install 'pip>=25.1' \
    && /tools/bin/python -m pip install --group wheel
COPY . ./
# What the repository's tag says, without the v: the context has no repository.
ARG VERSION=""
RUN --mount=type=cache,target=/root/.cache/pip \
    wheel="$(EDGESCRIBE_VERSION="$VERSION" tools/wheel.sh /tools /built)" \
    && /tools/bin/python -m pip wheel --wheel-dir /wheels --require-hashes \
        --requirement requirements.lock \
    && cp "$wheel" /wheels \
    && echo 'edgescribe[embedded]' >/wheels/requirements.txt

FROM python:${PYTHON}-slim-bookworm AS runtime
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    python -m pip install --no-cache-dir --no-index --find-links /wheels \
        --requirement /wheels/requirements.txt \
    && groupadd --gid 10001 edgescribe \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data edgescribe \
    && install --directory --owner=10001 --group=10001 /data
COPY --from=build /usr/bin/tini /usr/bin/tini

ARG REVISION=unknown
LABEL org.opencontainers.image.title="edgescribe" \
      org.opencontainers.image.description="Realtime transcription gateway for media servers" \
      org.opencontainers.image.licenses="Apache-2.0 AND BSD-3-Clause" \
      org.opencontainers.image.revision="${REVISION}"

ENV PYTHONUNBUFFERED=1 \
    EDGESCRIBE_HOST=0.0.0.0 \
    EDGESCRIBE_PORT=8080 \
    EDGESCRIBE_DATA_DIR=/data \
    EDGESCRIBE_LOG_FORMAT=json
WORKDIR /data
USER 10001:10001
RUN ["edgescribe", "doctor"]
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["edgescribe", "probe", "live"]
ENTRYPOINT ["/usr/bin/tini", "--", "edgescribe"]
CMD ["serve"]
