# syntax=docker/dockerfile:1

FROM rust:1.95-slim-bookworm AS build
# The same list as BUILD_PACKAGES in services/local/install.py.
RUN apt-get update \
    && apt-get install -y --no-install-recommends make gcc g++ pkg-config libssl-dev zlib1g-dev cmake \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
# The caches stay with the builder, not in the image: a changed source file compiles one crate, not 400.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin streamer && cp target/release/streamer /usr/local/bin/streamer

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libssl3 zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --home-dir /var/lib/streamer --create-home --shell /usr/sbin/nologin streamer
COPY --from=build /usr/local/bin/streamer /usr/local/bin/streamer
WORKDIR /etc/streamer
COPY pipelines pipelines
COPY schemas schemas
USER streamer
ENV STATE_DIR=/var/lib/streamer ARCHIVE_DIR=/var/lib/streamer/archive
VOLUME /var/lib/streamer
STOPSIGNAL SIGTERM
ENTRYPOINT ["streamer"]
CMD ["run", "pipelines/mqtt-to-kafka.yaml", "pipelines/kafka-to-clickhouse.yaml"]
