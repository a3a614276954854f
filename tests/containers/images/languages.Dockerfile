# What runs apps in Python, Node (which the base has) and Java, cron, and small apps of the tests' own, behind guard.
FROM node:20-slim
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
    cron curl gunicorn openjdk-17-jdk-headless uvicorn \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY apps .
RUN javac Server.java
COPY guard /usr/local/bin/
ENTRYPOINT ["guard", "--"]
