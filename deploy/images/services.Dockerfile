# One image for every service; the command says which one it is: `services.gateway`, `services.storage`, …
FROM python:3.13-slim AS build
COPY pyproject.toml constraints.txt /build/
WORKDIR /build
RUN python -m venv /opt/zdm \
 && setuptools=$(grep '^setuptools==' constraints.txt) \
 && /opt/zdm/bin/pip install -q --no-cache-dir --disable-pip-version-check -c constraints.txt "$setuptools" \
 && /opt/zdm/bin/pip install -q --no-cache-dir --disable-pip-version-check --no-build-isolation -c constraints.txt . \
 && /opt/zdm/bin/pip uninstall -q -y setuptools pip
COPY shared /app/shared
COPY services /app/services
COPY deploy/__init__.py /app/deploy/
COPY deploy/compose /app/deploy/compose
COPY deploy/simulator /app/deploy/simulator
RUN /opt/zdm/bin/python -m compileall -q -j 0 /app

FROM python:3.13-slim
# The folders that volumes are mounted on: a new volume takes their owner and mode.
RUN useradd --system --no-create-home --uid 10001 --user-group zdm \
 && install -d -o zdm -g zdm -m 0700 /var/lib/zdm /var/lib/zdm/secrets /var/lib/zdm/pki /var/lib/zdm/pki/authority \
      /var/lib/zdm/database \
 && for n in "" -2 -3 -4 -5 -6 -7 -8 -9; do \
      install -d -o zdm -g zdm -m 0700 "/var/lib/zdm/broker$n" "/var/lib/zdm/spool$n"; done
COPY --from=build /opt/zdm /opt/zdm
COPY --from=build /app /app
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/app ZDM_HOME=/var/lib/zdm ZDM_LOG_FORMAT=json
WORKDIR /app
USER 10001:10001
ENTRYPOINT ["/opt/zdm/bin/python", "-m"]
