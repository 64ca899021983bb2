# The one HTTP port of the installation, in front of however many gateways there are.
FROM debian:trixie-slim
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends haproxy >/dev/null \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --no-create-home --uid 10001 --user-group zdm
COPY deploy/proxy/haproxy.cfg /etc/zdm/haproxy.cfg
USER 10001:10001
ENTRYPOINT ["haproxy", "-W", "-db", "-f", "/etc/zdm/haproxy.cfg"]
