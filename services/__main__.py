"""The embedded profile: every service in one process and one event loop, sharing log, documents and registry."""


