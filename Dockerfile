# guard's own image: the static binary and nothing else, for other images to copy from.
#
#   docker build -t guard .
#   COPY --from=guard /guard /usr/local/bin/guard

# BuildKit cross-compiles on the machine that it runs on, whatever the image is for.
FROM --platform=${BUILDPLATFORM:-linux/amd64} rust:1 AS build
# Set by BuildKit too, for each architecture that --platform names; without it the image is for the machine that builds it.
ARG TARGETARCH
WORKDIR /src
COPY . .
RUN case "${TARGETARCH:-$(uname -m)}" in \
        amd64 | x86_64) target=x86_64-unknown-linux-musl ;; \
        arm64 | aarch64) target=aarch64-unknown-linux-musl ;; \
        *) echo "no target for $TARGETARCH: there are amd64 and arm64" >&2; exit 1 ;; \
    esac \
    && rustup target add "$target" \
    && cargo build --release --locked --target "$target" \
    && cp "target/$target/release/guard" /guard

FROM scratch
COPY --from=build /guard /guard
ENTRYPOINT ["/guard"]
CMD ["--help"]
