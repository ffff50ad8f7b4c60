# Two images from one wheel:
#   docker build --target toolchain -t edgeft .          edgeft[train]: build, plan, everything
#   docker build --target device -t edgeft-device .      the base install: verify, predict, inspect; no torch

FROM python:3.11-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY edgeft edgeft
COPY exporters exporters
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim AS base
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
RUN useradd --create-home --uid 1000 edgeft
WORKDIR /work
COPY --from=wheel /wheels /wheels
ENTRYPOINT ["edgeft"]

FROM base AS toolchain
RUN pip install "$(ls /wheels/*.whl)[train]"
USER edgeft
CMD ["--help"]

FROM base AS device
RUN pip install /wheels/*.whl
USER edgeft
# With a bundle mounted at /bundle: its digests and golden vectors; without: the install itself.
HEALTHCHECK --interval=5m --timeout=60s --start-period=10s \
  CMD if [ -e /bundle/manifest.json ]; then edgeft verify /bundle; else edgeft doctor; fi
CMD ["doctor"]
