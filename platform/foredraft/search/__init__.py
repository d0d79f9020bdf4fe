"""The joint study: Ray Tune and Optuna over draft and acceptance; its record needs no Ray."""
