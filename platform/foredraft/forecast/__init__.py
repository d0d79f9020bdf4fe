"""What a study is for: forecasting new data by its choice."""

from foredraft.forecast.forecaster import write_forecast

__all__ = ["write_forecast"]
