"""HTTP: events in, answers out, health and metrics; for people who come with any client."""
