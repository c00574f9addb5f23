# The image of a node: one static binary, a file of settings, empty directories. No shell, no libraries, no package manager.
#
#     docker build -t ottla .
#     docker run -p 9092:9092 ottla
#
# docs/docker.md says what can be set. `tests/image` builds and runs it.

ARG BUILD_IMAGE=docker.io/library/rust:1.95-slim-bookworm

FROM ${BUILD_IMAGE} AS build
# The toolchain of the image is the right one already; rust-toolchain.toml asks for parts that only developers need.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src
COPY . .
# Static: with --target, because what runs while it is built (build scripts, procedural macros) cannot be.
# Line tables stay out, names stay in: a backtrace still names its functions.
RUN target="$(rustc --version --verbose | sed -n 's/^host: //p')" \
 && export RUSTFLAGS='-C target-feature=+crt-static' CARGO_PROFILE_RELEASE_STRIP=debuginfo \
 && cargo build --release --locked --package ottla-broker --target "$target" \
 && install -D -m 755 "target/$target/release/ottla" /image/root/usr/local/bin/ottla \
 && install -D -m 644 docker/server.properties /image/root/etc/ottla/server.properties \
 && echo 'ottla:x:1000:1000:ottla:/var/lib/ottla:/sbin/nologin' > /image/root/etc/passwd \
 && echo 'ottla:x:1000:' > /image/root/etc/group \
 && echo 'hosts: files dns' > /image/root/etc/nsswitch.conf
# What the node may write. Group 0 may, too: some platforms run images as any user of that group. `/var/lib/kafka/data`
# and /tmp are where files made for other images put their data.
RUN mkdir -p /image/data/var/lib/ottla/data /image/data/var/lib/kafka/data /image/data/tmp \
 && chmod -R 775 /image/data && chmod 1777 /image/data/tmp

FROM scratch
LABEL org.opencontainers.image.title="ottla" \
      org.opencontainers.image.description="A broker that speaks the Kafka protocol" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /image/root/ /
COPY --from=build --chown=1000:0 /image/data/ /
ENV OTTLA_CONFIG=/etc/ottla/server.properties
WORKDIR /var/lib/ottla
VOLUME /var/lib/ottla
USER 1000:1000
EXPOSE 9092 9644
STOPSIGNAL SIGTERM
# A long recovery is no failure; `docker ps` says "starting" meanwhile.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10m --retries=3 CMD ["/usr/local/bin/ottla", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/ottla"]
CMD ["start"]
