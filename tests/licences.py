"""The licence of a distribution in a few words, from its own metadata."""

from __future__ import annotations

import re
from email.message import Message


def read_licence(metadata: Message) -> str:
    """Its SPDX expression, else its classifiers, else the first line of its licence field."""
    expression = metadata.get("License-Expression")
    if expression:
        return str(expression)
    classifiers = [
        str(value).rpartition(" :: ")[2]
        for value in metadata.get_all("Classifier", [])
        if str(value).startswith("License :: ") and value != "License :: OSI Approved"
    ]
    if classifiers:
        return ", ".join(classifiers)
    lines = [line.strip() for line in str(metadata.get("License", "")).splitlines() if line.strip()]
    return re.sub(r"\s+", " ", lines[0])[:80] if lines else "not said in its metadata"
