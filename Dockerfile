# Three images: `api` and `index` have no torch; `worker` has torch with the CUDA libraries of its wheel, about 7 GB.
# They need BuildKit, which is the default since Docker 23.

# The digest is that of 3.11.16-slim-trixie. docs/operations.md says how to take a newer one.
FROM python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7 AS base
WORKDIR /srv/strata
# The uid is fixed because the containers of a machine share volumes. A new volume gets the owner of the folder that is
# created here.
RUN useradd --create-home --uid 10001 strata \
    && install --directory --owner strata --group strata \
        /var/lib/strata /var/lib/strata/search /var/lib/strata/store /var/lib/strata/models
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    STRATA_DATA_DIR=/var/lib/strata \
    STRATA_MODELS=/var/lib/strata/models

# An editable installation, as in a checkout: Python finds the package in this folder, into which the code is copied
# later, so a change of the code does not invalidate the layer with the dependencies.
FROM base AS install
RUN python -m venv /opt/venv && touch README.md
COPY pyproject.toml constraints.txt ./
COPY strata/__init__.py strata/__init__.py

FROM install AS install-light
# extras of pyproject.toml for the storages of shards and the store
ARG STORAGES=s3,gcs,http
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/venv/bin/pip install --constraint constraints.txt --editable ".[api,lineage,otel,${STORAGES}]"

FROM install AS install-worker
ARG STORAGES=s3,gcs,http
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/venv/bin/pip install --constraint constraints.txt --editable ".[workers,otel,${STORAGES}]"

# The root file system of a container may be read-only, so that Python cannot keep what it compiles: it is compiled here.
FROM base AS light
COPY --from=install-light /opt/venv /opt/venv
COPY strata strata

FROM light AS api
COPY app app
COPY models/profiles models/profiles
COPY models/prompts models/prompts
RUN python -m compileall -q .
USER 10001
ENV STRATA_HOST=0.0.0.0
EXPOSE 8080
# The check asks whether the service is alive and not whether it is ready: a service without workers must not be
# restarted.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ.get('STRATA_PORT', '8080') + '/healthz', timeout=4)"]
CMD ["python", "-m", "strata", "serve", "--no-workers"]

FROM light AS index
COPY models models
COPY workers workers
RUN python -m compileall -q .
USER 10001
HEALTHCHECK --interval=30s --timeout=20s --start-period=30s CMD ["python", "-m", "strata", "worker", "--check"]
CMD ["python", "-m", "strata", "worker", "--groups", "index"]

FROM base AS worker
COPY --from=install-worker /opt/venv /opt/venv
COPY weights weights
COPY strata strata
COPY models models
COPY workers workers
RUN python -m compileall -q .
USER 10001
# A worker is ready when its models are loaded, which may take minutes.
HEALTHCHECK --interval=30s --timeout=20s --start-period=15m CMD ["python", "-m", "strata", "worker", "--check"]
CMD ["python", "-m", "strata", "worker", "--groups", "vision,llm"]
