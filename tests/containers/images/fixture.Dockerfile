# The tests' app behind guard, in an image with a shell.
FROM debian:bookworm-slim
COPY guard fixture /usr/local/bin/
ENTRYPOINT ["guard", "--"]
CMD ["fixture", "serve"]
