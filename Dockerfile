# One image for every service: `dns-tunnel run` by itself; docker-compose.yml runs listen, api and schedule.
FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv --without-pip /opt/venv
COPY requirements.txt ./
RUN pip --python /opt/venv/bin/python install --require-hashes -r requirements.txt
COPY pyproject.toml ./
COPY agents agents
# Bytecode stays (the file system is read-only later, it could not be made then); packages' own tests go.
RUN pip --python /opt/venv/bin/python install --no-deps --no-build-isolation . \
 && pip --python /opt/venv/bin/python uninstall -y setuptools \
 && find /opt/venv/lib -type d -name tests -prune -exec rm -rf {} +
# Compiled for any processor of this kind (x86-64-v2, ARMv8): a container starts on another one without compiling again.
# From /, so that the installed package is warmed and not its copy in /src.
RUN cd / && COMPILED_FOR=any /opt/venv/bin/python -m agents.runtime.warmup
# Extras by name, "nats kafka": last, so that another choice compiles nothing again.
ARG EXTRAS=""
COPY requirements-*.txt ./
RUN for extra in $EXTRAS; do \
        pip --python /opt/venv/bin/python install --require-hashes -r "requirements-$extra.txt" || exit 1; \
    done

FROM python:3.11-slim-bookworm
# Written by hand: useradd is not in every slim image.
RUN echo 'dns-tunnel:x:10001:10001::/app:/usr/sbin/nologin' >>/etc/passwd \
 && echo 'dns-tunnel:x:10001:' >>/etc/group \
 && mkdir -p /app/models /app/reports /app/logs /app/data \
 && chown -R 10001:10001 /app
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY --chmod=755 scripts/automated_retraining.py scripts/setup_weekly_training.sh scripts/
COPY --chmod=755 scripts/container/crontab scripts/container/service /usr/local/bin/
ENV PATH=/opt/venv/bin:/usr/local/bin:$PATH DATA_DIR=/app LISTEN_HOST=0.0.0.0 API_HOST=0.0.0.0 COMPILED_FOR=any \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
USER 10001:10001
# Nothing lies in these: what does is copied into a new volume, and services that start together get into each other's way.
VOLUME ["/app/models", "/app/reports", "/app/logs", "/app/data"]
EXPOSE 5335/udp 5335/tcp 8053/tcp
HEALTHCHECK --interval=10s --timeout=10s --start-period=30s --retries=3 CMD ["dns-tunnel", "health", "listener"]
ENTRYPOINT ["dns-tunnel"]
CMD ["run"]
