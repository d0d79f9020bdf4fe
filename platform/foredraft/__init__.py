"""foredraft finds, trains and proves the draft model that makes a time-series forecaster faster."""

__version__ = "0.1.0"
