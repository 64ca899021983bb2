"""What storage counts."""

from prometheus_client import Counter

STORED = Counter("zdm_storage_points_stored_total", "Data points that were new")
REPEATED = Counter("zdm_storage_points_repeated_total", "Data points that were there already")
REFUSED = Counter("zdm_storage_records_refused_total", "Records that are no data points")
FORGOTTEN = Counter(
    "zdm_storage_points_forgotten_total", "Data points dropped with the device or workspace they were of"
)
