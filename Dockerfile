# Training, on CUDA GPUs (the torch wheel brings the libraries, the host its driver) or on the CPU. docs/docker.md.
#
#   docker build --build-arg COMMIT="$(git describe --always --dirty --abbrev=40 --exclude '*')" --tag detect .
#
# Another wheel index, as for another CUDA or for the CPU alone: --build-arg TORCH_INDEX=ADDRESS. Another Debian or
# Ubuntu with Python 3.11, its venv and its headers: --build-arg BASE=IMAGE.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

# g++ is for --model.compile true. Debian keeps one version of a package: a pinned one would soon not be found.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /detect
# What docker/install reads: a change of any other file installs no package again.
COPY requirements/train.txt requirements/torch.txt requirements/
COPY docker/install docker/install
ARG TORCH_INDEX=
ARG TORCH=
RUN bash docker/install "${TORCH_INDEX}" ${TORCH}

# Whoever runs the container (--user) may write here: volumes for what is read and made, a home for caches.
RUN useradd --create-home --uid 1000 detect \
    && mkdir data runs \
    && chown detect:detect data runs \
    && chmod 1777 data runs /home/detect
# onnxruntime would otherwise try to report its use to its makers.
ENV PATH=/detect/.venv/bin:$PATH HOME=/home/detect USER=detect ORT_DISABLE_TELEMETRY=1

# The command, which reads the code from the folder beside it; that one comes last. Without the network, and with the
# mark by which scripts/quickstart knows that nothing is left to install.
COPY pyproject.toml README.md LICENSE ./
COPY requirements/constraints.txt requirements/
RUN mkdir detect && touch detect/__init__.py \
    && .venv/bin/python -m pip install --no-cache-dir --no-deps --no-build-isolation --no-index --editable . \
    && .venv/bin/python -m pip check \
    && echo "${PWD} $(cksum pyproject.toml requirements/constraints.txt)" >.venv/installed-base
COPY configs configs
COPY examples examples
COPY scripts scripts
USER 1000:1000
VOLUME ["/detect/data", "/detect/runs"]
# A change of the code makes this layer alone again.
COPY detect detect

# RUN/manifest.json records it.
ARG COMMIT=
LABEL org.opencontainers.image.title="detect" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${COMMIT}"
ENV DETECT_COMMIT=${COMMIT}
ENTRYPOINT ["detect"]
CMD ["--help"]
