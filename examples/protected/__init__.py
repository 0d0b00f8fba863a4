"""A shop in a FastAPI service: Genesis in the process and event loop of the server."""
