"""What is nobody's to read: passwords, tokens and keys, blotted out before a text is shown or kept.

redacted("postgresql://team:hunter2@host/optuna")      # postgresql://team:***@host/optuna
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# Over-careful rather than not enough: all that may be a password goes, up to the last @ of a word.
# A path has lost one of an address's slashes; a drive is no scheme.
_URL_PASSWORD = re.compile(r"(://[^\s:/]*|\b[a-zA-Z][\w.+-]+:/[^\s:/]*):\S+@")
# A user that is long, of letters and digits: a key that needs no password, as of a git remote.
_KEY_AS_USER = re.compile(r"://(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{20,}@")
_SECRET_NAME = (
    r"[\w-]*(?:password|passwd|passphrase|secret|token|credential|authorization|signature"
    r"|api[_-]?key|access[_-]?key|private[_-]?key)[\w-]*"
)
# `secret_key=value`, `"token": "value"`; in an address another parameter may follow.
_NAMED_SECRET = re.compile(
    # After a colon and a space prose may follow, which is more than one word.
    rf"(?im)({_SECRET_NAME}[\"']?(?:\s*=\s*|:|\s*:\s*(?=[\"'])|\s*:\s+(?=\S+[ \t]*$)))"
    r"(?!\*{3}(?:\W|$))"
    r"(?:\"[^\"]*\"|'[^']*'|(?:[^\s&]|&(?![\w.-]+=))+)"
)
_SECRET_OPTION = re.compile(rf"(?i)(--{_SECRET_NAME})\s+(?!-)\S+")
_BEARER = re.compile(r"(?i)\b(bearer|authorization[\"']?\s*[:=]\s*[\"']?\w+)\s+[\w.~+/=-]{6,}")
# Keys that tell what they are: of AWS, GitHub, Hugging Face.
_KNOWN_KEY = re.compile(
    r"\b(?:A[KS]IA[A-Z0-9]{16}|gh[a-z]_\w{20,}|github_pat_\w{20,}|hf_[A-Za-z0-9]{20,})\b"
)


def redacted(text: str) -> str:
    """`text` with passwords in addresses, and secrets, tokens and keys, replaced by ***."""
    text = _KEY_AS_USER.sub("://***@", _URL_PASSWORD.sub(r"\1:***@", text))
    text = _BEARER.sub(r"\1 ***", text)
    text = _SECRET_OPTION.sub(r"\1 ***", _NAMED_SECRET.sub(r"\1***", text))
    return _KNOWN_KEY.sub("***", text)


def redacted_words(words: Sequence[str]) -> list[str]:
    """The words of a command: a secret may be the one after its option."""
    told = []
    for before, word in zip(["", *words], words, strict=False):
        follows = re.fullmatch(rf"(?i)--?{_SECRET_NAME}", before) and not word.startswith("--")
        told.append("***" if follows else redacted(word))
    return told
