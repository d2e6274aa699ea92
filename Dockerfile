# One image for node, gateway and operator: the same as hack/image builds without Docker.
# No entrypoint: every pod names its command (distkv node, distkv gateway, kopf run).

FROM debian:bookworm-slim AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv
WORKDIR /source
COPY . .
# .venv: the versions and hashes of constraints.txt, and the tools that make the project's wheel.
RUN hack/setup && PYTHONPATH=hack .venv/bin/python -m testbed.image.site /site

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3.11 libstdc++6 busybox-static \
    && rm -rf /var/lib/apt/lists/* \
    && ln -s python3.11 /usr/bin/python \
    && groupadd --gid 10001 distkv \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp distkv
COPY --from=build /site/packages /usr/local/lib/python3.11/dist-packages
COPY --from=build /site/bin /usr/local/bin
# The root file system is read-only in a pod, so what is not compiled here would be at each start.
RUN python3.11 -m compileall -q --invalidation-mode unchecked-hash \
    /usr/lib/python3.11 /usr/local/lib/python3.11/dist-packages || true
ENV LANG=C.UTF-8 HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
