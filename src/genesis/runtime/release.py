"""Which version of Genesis runs."""


def version() -> str:
    """Version of Genesis that is installed."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("genesis-runtime")
    except PackageNotFoundError:
        return "0.1.0"  # run from its source
