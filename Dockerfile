# The operator: Python, kopf and a Kubernetes client. The build context of every image is the repository's root.
# The secret `index` holds index and proxies of the machine that builds: a mount, so that no layer and no history keeps them.
ARG BASE_IMAGE
FROM ${BASE_IMAGE} AS wheels
COPY requirements/build.lock /src/
RUN --mount=type=secret,id=index set -eu; \
    if [ -f /run/secrets/index ]; then . /run/secrets/index; fi; \
    PIP_CERT=/etc/ssl/certs/ca-certificates.crt python3 -m pip install --quiet --no-cache-dir --disable-pip-version-check \
        --root-user-action=ignore --require-hashes --no-deps --target /opt/build --requirement /src/build.lock
COPY crds /src/crds
COPY operator /src/operator
RUN PYTHONPATH=/opt/build python3 -m pip wheel --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation \
        --wheel-dir /wheels /src/crds /src/operator

FROM ${BASE_IMAGE}
COPY requirements/operator.lock /opt/requirements/
RUN --mount=type=secret,id=index set -eu; \
    if [ -f /run/secrets/index ]; then . /run/secrets/index; fi; \
    PIP_CERT=/etc/ssl/certs/ca-certificates.crt python3 -m pip install --quiet --no-cache-dir --disable-pip-version-check \
        --root-user-action=ignore --break-system-packages --require-hashes --no-deps --requirement /opt/requirements/operator.lock; \
    grep -q ':65532:' /etc/passwd || echo 'videogen:x:65532:65532::/tmp:/usr/sbin/nologin' >> /etc/passwd
COPY --from=wheels /wheels /opt/wheels
RUN python3 -m pip install --quiet --disable-pip-version-check --no-index --no-deps --break-system-packages --root-user-action=ignore \
        /opt/wheels/*.whl
COPY images/notices.py /opt/videogen/
RUN python3 /opt/videogen/notices.py /usr/share/doc/videogen/NOTICES
# No module is taken from the working folder or a home, which are writable: `python3 -m` would prefer them.
ENV PYTHONSAFEPATH=1 PYTHONNOUSERSITE=1
ENV HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["python3", "-m", "videogen_operator"]
