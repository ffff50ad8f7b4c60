# Two images from one wheel:
#   docker build --target toolchain -t edgeft .          edgeft[train]: build, plan, everything
#   docker build --target device -t edgeft-device .      the base install: verify, predict, bench, activate; no torch, no pip
#       --build-arg EXTRAS='[text,serve,sign]'           with what texts, serving and signatures need
#   docker run --read-only -v $PWD/dist/solar-cells:/bundle:ro edgeft-device verify /bundle

FROM python:3.11-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY edgeft edgeft
COPY exporters exporters
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim AS toolchain
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
RUN useradd --create-home --uid 1000 edgeft
WORKDIR /work
COPY --from=wheel /wheels /wheels
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN pip install --no-cache-dir "$(ls /wheels/*.whl)[train]"
USER 1000
ENTRYPOINT ["edgeft"]
CMD ["--help"]

# Debian's own Python 3.11 and a folder of libraries: half of what python:3.11-slim, its pip and a second layer would take.
FROM wheel AS libraries
ARG EXTRAS=""
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN pip install --no-cache-dir --no-compile --target /libraries "$(ls /wheels/*.whl)$EXTRAS" \
    && find /libraries -type d -name tests -prune -exec rm -rf {} +

FROM debian:bookworm-slim AS device
# Whatever version Debian's security updates have: no pin.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends python3 && rm -rf /var/lib/apt/lists/* \
    && useradd --no-create-home --uid 1000 edgeft
COPY --from=libraries /libraries /usr/local/lib/edgeft
ENV PYTHONPATH=/usr/local/lib/edgeft PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 1000
ENTRYPOINT ["python3", "-m", "edgeft"]
# With a bundle mounted at /bundle: its digests and golden vectors; without: the install itself.
HEALTHCHECK --interval=5m --timeout=60s --start-period=10s \
  CMD ["/bin/sh", "-c", "if [ -e /bundle/manifest.json ]; then python3 -m edgeft verify /bundle; else python3 -m edgeft doctor; fi"]
CMD ["doctor"]
