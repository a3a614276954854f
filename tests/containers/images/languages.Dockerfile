# What runs apps in Python, Node and Java, and small apps of the tests' own, behind guard.
FROM debian:bookworm-slim
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
    gunicorn nodejs npm openjdk-17-jdk-headless uvicorn \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY apps .
RUN javac Server.java
COPY guard /usr/local/bin/
ENTRYPOINT ["guard", "--"]
