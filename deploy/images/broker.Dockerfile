# Debian's Mosquitto with our plugin.
FROM debian:trixie-slim AS build
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends gcc libc6-dev make mosquitto-dev libmosquitto-dev libssl-dev \
      libcjson-dev uthash-dev zlib1g-dev >/dev/null
COPY deploy/mosquitto/plugin /build/deploy/mosquitto/plugin
RUN make -s -C /build/deploy/mosquitto/plugin

FROM debian:trixie-slim
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends mosquitto libcjson1 zlib1g >/dev/null \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --no-create-home --uid 10001 --user-group zdm \
 && install -d -o zdm -g zdm -m 0700 /var/lib/zdm /var/lib/zdm/pki \
 && for n in "" -2 -3 -4 -5 -6 -7 -8 -9; do \
      install -d -o zdm -g zdm -m 0700 "/var/lib/zdm/broker$n" "/var/lib/zdm/spool$n"; done
COPY --from=build /build/build/plugin/zdm_plugin.so /usr/lib/zdm/zdm_plugin.so
COPY deploy/mosquitto/start deploy/mosquitto/mosquitto.conf.in /usr/lib/zdm/
ENV ZDM_HOME=/var/lib/zdm ZDM_BROKER_PLUGIN=/usr/lib/zdm/zdm_plugin.so
USER 10001:10001
ENTRYPOINT ["/usr/lib/zdm/start"]
