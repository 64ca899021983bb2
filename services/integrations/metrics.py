"""What integrations counts: enqueued = delivered + parked + dropped + what is waiting (looked up every ten seconds)."""

from prometheus_client import Counter, Gauge

ENQUEUED = Counter("zdm_integrations_points_enqueued_total", "Points put into a queue")
DELIVERED = Counter("zdm_integrations_points_delivered_total", "Points that a receiver accepted")
PARKED = Counter("zdm_integrations_points_parked_total", "Points that a receiver refused for good")
DROPPED = Counter("zdm_integrations_points_dropped_total", "Points that were not delivered", ["reason"])
REPEATED = Counter("zdm_integrations_points_repeated_total", "Points that were in the queue already")
TRIES = Counter("zdm_integrations_tries_total", "Posts by outcome", ["outcome"])
WAITING = Gauge("zdm_integrations_points_waiting", "Points in all queues")
REFUSED = Counter("zdm_integrations_records_refused_total", "Records that are no data points")
