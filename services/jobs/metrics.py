"""What the jobs service counts."""

from prometheus_client import Counter

# kind: state, #status, #now, #conditions, unknown_request, condition, status_full, malformed, or gone (device deleted).
UPS = Counter("zdm_jobs_ups_total", "Messages of devices, by what they were", ["kind"])
FORGOTTEN = Counter("zdm_jobs_devices_forgotten_total", "Deleted devices whose status was deleted")
