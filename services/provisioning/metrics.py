"""What provisioning counts."""

from prometheus_client import Counter, Gauge

DEVICES = Gauge("zdm_provisioning_devices", "Devices there are")
CREDENTIALS = Counter("zdm_provisioning_credentials_issued_total", "Credentials issued", ["mode", "key_type"])
CERTIFICATES_ISSUED = Counter("zdm_provisioning_certificates_issued_total", "Client certificates issued")
CERTIFICATES_REVOKED = Counter("zdm_provisioning_certificates_revoked_total", "Client certificates revoked")
UNTOLD = Gauge("zdm_provisioning_untold", "Workspaces, fleets and devices whose last change is not told yet")
PRESENCE = Counter("zdm_provisioning_presence_records_total", "Presence records taken in", ["kind"])
REFUSED = Counter("zdm_provisioning_refused_records_total", "Records that are no such message", ["topic"])
BROKER_LAG = Gauge("zdm_provisioning_broker_lag", "Places in the access topic that the broker is behind", ["broker"])
BROKER_SYNCS = Counter("zdm_provisioning_broker_full_syncs_total", "Full synchronisations of a broker", ["broker"])
