"""What ingestion counts.

Of one run: `zdm_ingestion_records_total` = appended + rejected, by the same records; what damage took is in
`zdm_ingestion_missing_records_total`. Together they are the records that the broker wrote.
"""

from prometheus_client import Counter, Gauge

RECORDS = Counter("zdm_ingestion_records_total", "Records of the spool that were taken in", ["kind"])
APPENDED = Counter("zdm_ingestion_appended_total", "Records appended to the log", ["topic"])
REJECTED = Counter("zdm_ingestion_rejected_total", "Records set aside with reason and bytes", ["topic", "reason"])
MISSING = Counter("zdm_ingestion_missing_records_total", "Sequence numbers that damage of the spool took")
BATCHES = Counter("zdm_ingestion_batches_total", "Batches taken in")
SEQUENCE = Gauge("zdm_ingestion_sequence", "Sequence number of the last record taken in")
LOG_WAITS = Counter("zdm_ingestion_log_waits_total", "Appends that the log refused and that were tried again")

TORN_TAILS = Counter("zdm_ingestion_torn_tails_total", "Torn ends of segments, never acknowledged, that were dropped")
DAMAGED_SEGMENTS = Counter("zdm_ingestion_damaged_segments_total", "Segments set aside for damage")
DAMAGED_BYTES = Counter("zdm_ingestion_damaged_bytes_total", "Bytes from the damage to the end of those segments")

SENT = Counter("zdm_ingestion_down_sent_total", "Messages for devices that the broker took")
DOWN_REJECTED = Counter("zdm_ingestion_down_rejected_total", "Messages for devices that cannot be sent", ["reason"])
BROKER_WAITS = Counter(
    "zdm_ingestion_broker_waits_total", "Sends that the broker did not take and that were tried again"
)

MOVED = Counter("zdm_ingestion_moved_total", "Devices that connected to other brokers, told to this one")
PRESENCE_REFUSED = Counter("zdm_ingestion_presence_refused_total", "Presence records that cannot be read")
