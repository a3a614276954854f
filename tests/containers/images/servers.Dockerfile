# Servers as Debian has them, with their own configuration, behind guard.
FROM debian:bookworm-slim
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
    apache2 haproxy libfcgi-bin nginx-light php-fpm postgresql redis-server \
 && rm -rf /var/lib/apt/lists/*

# Something small, something that no socket's buffers can hold, and something that waits for the end of its request.
RUN echo 'it works' >/var/www/html/index.html \
 && truncate --size 64M /var/www/html/big \
 && printf '%s\n' '<?php ob_end_flush(); echo "begun\n"; flush();' 'echo file_get_contents("php://input"), "\n";' \
    >/var/www/html/echo.php

# What httpd and haproxy cannot do without, and what php-fpm needs to finish its requests.
RUN mkdir /run/apache2 \
 && printf '%s\n' defaults ' mode http' ' timeout connect 5s' ' timeout client 60s' ' timeout server 60s' \
    'listen web' ' bind :80' ' server one "${BACKEND}"' >/etc/haproxy/haproxy.cfg \
 && printf '%s\n' '[global]' 'process_control_timeout = 8s' 'include = /etc/php/8.2/fpm/php-fpm.conf' >/etc/php/drain.conf

COPY guard /usr/local/bin/
ENTRYPOINT ["guard", "--"]
