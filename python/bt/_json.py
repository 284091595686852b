"""Python values as the JSON the extension reads."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from typing import Any


def _plain(value: Any) -> Any:
    """What JSON has no word for but configurations hold: dates, numpy scalars and arrays, other mappings, sets."""
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    for name in ("tolist", "item"):
        convert = getattr(value, name, None)
        if callable(convert):
            return convert()
    raise TypeError(f"a {type(value).__name__} cannot stand in a configuration")


def to_json(what: str, value: Any) -> str:
    """``value`` as JSON text; NaN and infinity are refused."""
    try:
        return json.dumps(value, allow_nan=False, default=_plain, ensure_ascii=False)
    except ValueError as error:
        raise ValueError(f"E4002 {what}: numbers must be finite ({error})") from None
