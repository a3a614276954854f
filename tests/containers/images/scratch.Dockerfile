# The tests' app behind guard, and nothing else: no shell, no C library, no /tmp.
FROM scratch
COPY guard fixture /
ENTRYPOINT ["/guard", "--"]
CMD ["/fixture", "serve"]
