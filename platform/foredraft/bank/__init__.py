"""The bank of models: each distinct one is trained once, whoever asks."""

from foredraft.bank.store import (
    Kind,
    Model,
    add,
    check_pair,
    directory_of,
    epochs_file,
    facts_of,
    find,
    is_whole,
    key_of,
    models,
    obtain,
    open_model,
)

__all__ = [
    "Kind",
    "Model",
    "add",
    "check_pair",
    "directory_of",
    "epochs_file",
    "facts_of",
    "find",
    "is_whole",
    "key_of",
    "models",
    "obtain",
    "open_model",
]
