# The operator: Python, kopf and a Kubernetes client. The build context of every image is the repository's root.
ARG BASE_IMAGE=python:3.11-slim-bookworm
FROM ${BASE_IMAGE} AS wheels
# Package index and proxy of the machine that builds; never kept in the image.
ARG PIP_INDEX_URL
COPY requirements/build.lock /src/
RUN PIP_CERT=/etc/ssl/certs/ca-certificates.crt python3 -m pip install --quiet --no-cache-dir --disable-pip-version-check \
        --root-user-action=ignore --require-hashes --no-deps --target /opt/build --requirement /src/build.lock
COPY crds /src/crds
COPY operator /src/operator
RUN PYTHONPATH=/opt/build python3 -m pip wheel --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation \
        --wheel-dir /wheels /src/crds /src/operator

FROM ${BASE_IMAGE}
ARG PIP_INDEX_URL
COPY requirements/operator.lock /opt/requirements/
RUN PIP_CERT=/etc/ssl/certs/ca-certificates.crt python3 -m pip install --quiet --no-cache-dir --disable-pip-version-check \
        --root-user-action=ignore --break-system-packages --require-hashes --no-deps --requirement /opt/requirements/operator.lock && \
    { grep -q ':65532:' /etc/passwd || echo 'videogen:x:65532:65532::/tmp:/usr/sbin/nologin' >> /etc/passwd; }
COPY --from=wheels /wheels /opt/wheels
RUN python3 -m pip install --quiet --disable-pip-version-check --no-index --no-deps --break-system-packages --root-user-action=ignore \
        /opt/wheels/*.whl
ENV HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["python3", "-m", "videogen_operator"]
