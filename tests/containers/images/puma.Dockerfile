# Puma 8, which Debian 12 and 13 do not have, behind guard.
FROM debian:sid-slim
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends puma \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY apps/config.ru .
COPY guard /usr/local/bin/
ENTRYPOINT ["guard", "--"]
